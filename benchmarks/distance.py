"""`python -m benchmarks.distance`: a database as distant as one in another building.

It passes bytes on between a port of this machine and a PostgreSQL, each after a given delay.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path

SOCKET = ".s.PGSQL.{}"
CHUNK = 1 << 16

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _opened(host: str, port: int) -> Pair:
    """Connect to the database, at a folder of sockets or an address."""
    if host.startswith("/"):
        return await asyncio.open_unix_connection(Path(host) / SOCKET.format(port))
    return await asyncio.open_connection(host, port)


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    """Pass on what comes, in order and after the delay, until there is no more."""
    loop = asyncio.get_running_loop()
    on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, data = await on_its_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return
            sink.write(data)
            await sink.drain()

    arriving = asyncio.create_task(arrive())
    data = b"?"
    while data:
        data = await source.read(CHUNK)
        on_its_way.put_nowait((loop.time() + delay, data))
    await arriving
    sink.close()


async def _serve(port: int, host: str, to: int, delay: float) -> None:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await _opened(host, to)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                _carry(reader, far_writer, delay), _carry(far_reader, writer, delay)
            )

    async with await asyncio.start_server(join, "127.0.0.1", port) as server:
        await server.serve_forever()


def main() -> None:
    """Pass on until stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distance", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="to listen on")
    parser.add_argument("--host", required=True, help="the database's, or its folder of sockets")
    parser.add_argument("--to", type=int, default=5432, help="the database's port")
    parser.add_argument("--ms", type=float, default=1.0, help="each way")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(given.port, given.host, given.to, given.ms / 1e3))


if __name__ == "__main__":
    main()
