"""A minimal balancer in front of several servers."""

import contextlib
import itertools
import random
import socket
import threading

from serving import PATIENCE


class Balancer:
    """Passes each connection on to one of several servers, in turn, and skips those that are down.

    It works as a plain TCP balancer does: without parsing the traffic.
    """

    def __init__(self, ports: list[int], dice: random.Random | None = None) -> None:
        """Pass connections on in turn, or at random."""
        self._ports = itertools.cycle(ports)
        self._number = len(ports)
        self._dice = dice

    def __call__(self, connection: socket.socket) -> None:
        """Serve a connection in both directions, until one side ends it."""
        with self._connected() as server:
            back = threading.Thread(target=_pass_on, args=(server, connection))
            back.start()
            _pass_on(connection, server)
            back.join(PATIENCE)

    def _connected(self) -> socket.socket:
        skipped = self._dice.randrange(self._number) if self._dice else 0
        for port in list(itertools.islice(self._ports, skipped, skipped + self._number)):
            try:
                return socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                continue
        raise OSError("no server is up")


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            with contextlib.suppress(OSError):  # it is closed
                each.shutdown(socket.SHUT_RDWR)  # unlike `close` this wakes its reader
