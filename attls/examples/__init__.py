"""Small programs that know AT-TLS, to read and to copy: controlling servers of real protocols, and an aware server.

None of them contains any TLS. They agree on it in their protocol and then ask `attls.client` for it.
"""
