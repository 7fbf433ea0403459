"""The control channel: what aware and controlling programs ask about their own connections, as SIOCTTLSCTL does.

`protocol` turns messages into bytes and back and knows every rule about requests that needs no connection; `status`
tells what a record looks like to a program; `server` takes requests from `control.sock`. What a request does to a
connection is decided by whoever owns the connections. Clients use `attls.client`.
"""
