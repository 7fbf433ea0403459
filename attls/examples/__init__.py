"""Small programs that know AT-TLS: servers and clients of real protocols that start TLS themselves.

None of them contains any TLS. They agree on it in their protocol and then ask `attls.client` for it; `login` only asks.
"""
