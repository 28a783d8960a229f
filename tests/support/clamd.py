"""A clamd that speaks its protocol on loopback, and takes every file with `EICAR` in it for bad."""

import socket
import threading
from types import TracebackType


class FakeClamd:
    """Listens while it is entered. `answer`, where it is set, is what it says to any file."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"clamd://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeClamd":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Closing alone would leave the thread in `accept`.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                command = b""
                while not command.endswith(b"\0"):
                    command += stream.read(1)
                if command == b"zPING\0":
                    connection.sendall(b"PONG\0")
                    continue
                content = b""
                while length := int.from_bytes(stream.read(4), "big"):
                    content += stream.read(length)
                self.received.append(content)
                verdict = b"stream: Eicar-Test FOUND" if b"EICAR" in content else b"stream: OK"
                connection.sendall((self.answer or verdict) + b"\0")
