"""A TCP proxy between client and server: it slows answers down, and cuts the line."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

import httpx


class Proxy:
    """Passes data between client and server, as slowly as it is told, or not at all.

    A cut line closes no connection: like a router that is gone, it is silent, and the data of that
    time comes late when it is mended.

    Attributes:
        url: where clients find it.
        pause: seconds before each piece of an answer.
        piece: bytes of a piece, while there is a pause.
    """

    def __init__(self, url: str) -> None:
        self.pause = 0.0
        self.piece = 65536
        self._target = httpx.URL(url)
        self._whole = threading.Event()
        self._whole.set()
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Pass nothing on."""
        self._whole.clear()

    def mend(self) -> None:
        """Pass everything on again, and first what was held back."""
        self._whole.set()

    def close(self) -> None:
        """Accept no more connections."""
        self._open = False
        self._whole.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection((self._target.host, self._target.port or 80))
        except OSError:
            near.close()
            return
        threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
        self._pass_on(far, near, answers=True)

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, *, answers: bool = False
    ) -> None:
        try:
            while block := source.recv(self.piece if answers and self.pause else 65536):
                if answers and self.pause:
                    time.sleep(self.pause)
                self._whole.wait()
                sink.sendall(block)
        except OSError:
            pass
        finally:
            # Only this wakes the other direction's thread; the last one closes in vain.
            for each in (source, sink):
                _hang_up(each)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
