"""The backend for uploads: reads as many bytes as the client announced, throws them away, answers with the count.

A request is an 8-byte length followed by that many bytes; the answer is the 8-byte count. MSG_TRUNC lets the kernel
drop the bytes without copying them, so that the backend costs next to nothing. Run as
`python -m bench.sink PORT [PORT...]`.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading

LENGTH = struct.Struct("!Q")
CHUNK = 1 << 20


def serve(connection: socket.socket) -> None:
    """Answer requests until the client closes."""
    buffer = bytearray(CHUNK)  # never written to; Python wants room for what it is told it received
    with connection:
        while header := connection.recv(LENGTH.size, socket.MSG_WAITALL):
            (wanted,) = LENGTH.unpack(header)
            received = 0
            while received < wanted:
                count = connection.recv_into(buffer, min(CHUNK, wanted - received), socket.MSG_TRUNC)
                if not count:
                    return
                received += count
            connection.sendall(LENGTH.pack(received))


def listen(port: int) -> None:
    """Serve all who come to `port`, a thread per connection, for ever."""
    listener = socket.create_server(("0.0.0.0", port), backlog=128)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main() -> None:
    """Listen on all addresses until killed."""
    for port in sys.argv[1:]:
        threading.Thread(target=listen, args=(int(port),)).start()


if __name__ == "__main__":
    main()
