"""The minimum of a server under uvicorn: read a body, perhaps parse it, answer bytes."""

import argparse
import gc
from pathlib import Path
from typing import Any

import uvicorn
from pydantic_core import from_json


def app(answer: bytes, content_type: str, *, parse: bool) -> Any:  # noqa: ANN401 - an ASGI app
    """Make the ASGI app."""
    headers = [
        (b"content-length", str(len(answer)).encode()),
        (b"content-type", content_type.encode()),
    ]

    async def answers(_scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        if parse:
            from_json(body)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return answers


def main() -> None:
    """Serve with the settings that the service has, until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--content-type", required=True)
    parser.add_argument("--parse", action="store_true")
    options = parser.parse_args()
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app(options.answer.read_bytes(), options.content_type, parse=options.parse),
        port=options.port,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
        server_header=False,
    )


if __name__ == "__main__":
    main()
