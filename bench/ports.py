"""Which port means what, the same for every proxy: the benchmark's address plan."""

from __future__ import annotations

# The backend in the server namespace. attls is transparent: these are its ports too.
BACKEND_REQUEST = 8080
BACKEND_UPLOAD = 8081
BACKEND_RSA2048 = 8082
BACKEND_RSA4096 = 8083
BACKEND_PLAIN = 8090
BACKEND_PLAIN_UPLOAD = 8091
BACKEND_UNRULED = 8099
"""No rule of the policy and no proxy is about this one."""
BACKEND_WEB = (BACKEND_REQUEST, BACKEND_RSA2048, BACKEND_RSA4096, BACKEND_PLAIN, BACKEND_UNRULED)
BACKEND_SINK = (BACKEND_UPLOAD, BACKEND_PLAIN_UPLOAD)

# The other proxies, in the server namespace.
REQUEST = 8443
UPLOAD = 8444
RSA2048 = 8445
RSA4096 = 8446
PLAIN = 8480
PLAIN_UPLOAD = 8481
CLIENT = 8490
CLIENT_FULL = 8491
CLIENT_UPLOAD = 8492

# The TLS server in the client namespace, for proxies in the client role.
REMOTE_RESUMING = 9443
REMOTE_FULL = 9444
REMOTE_UPLOAD = 9445
REMOTE_SINK = 9081
