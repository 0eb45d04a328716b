"""A stand-in for the service of Tinker's SDK: its protocol, and a model of a few numbers.

The SDK is the real one, and so are its messages, in protobuf where the SDK uses it. Behind it is a
table of logits, one row for each token, trained by AdamW as Tinker documents its own: a learning
rate that is off by a bit leads to other weights.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from tinker.proto import tinker_public_pb2 as wire

TOKENS = 16

PROTOBUF = "application/x-protobuf"


@dataclass
class Model:
    """A table of logits, and the state of AdamW."""

    logits: np.ndarray
    first: np.ndarray
    second: np.ndarray
    updates: int = 0
    gradient: np.ndarray | None = None

    @classmethod
    def new(cls) -> "Model":
        """Return an untrained model."""
        return cls(*(np.zeros((TOKENS, TOKENS)) for _ in range(3)))

    def copy(self) -> "Model":
        """Return what a checkpoint keeps: no gradient."""
        return Model(self.logits.copy(), self.first.copy(), self.second.copy(), self.updates)

    def learn(self, data: Any) -> float:
        """Add the gradient of a batch; return the sum of the losses of its tokens."""
        gradient, total = np.zeros_like(self.logits), 0.0
        for datum in data:
            [chunk] = datum.model_input
            seen = np.frombuffer(chunk.encoded_text.tokens, np.int32)
            wanted = np.frombuffer(datum.loss_fn_inputs["target_tokens"].dense, np.int64)
            shares = np.exp(self.logits[seen])
            shares /= shares.sum(1, keepdims=True)
            total -= float(np.log(shares[np.arange(len(seen)), wanted]).sum())
            shares[np.arange(len(seen)), wanted] -= 1.0
            np.add.at(gradient, seen, shares)
        self.gradient = gradient
        return total

    def update(self, asked: dict[str, float]) -> None:
        """Make a step of AdamW."""
        assert self.gradient is not None
        self.updates += 1
        low, high = asked["beta1"], asked["beta2"]
        self.first = low * self.first + (1 - low) * self.gradient
        self.second = high * self.second + (1 - high) * self.gradient**2
        mean = self.first / (1 - low**self.updates)
        spread = np.sqrt(self.second / (1 - high**self.updates)) + asked["eps"]
        self.logits = self.logits - asked["learning_rate"] * mean / spread
        self.gradient = None


@dataclass
class Tinker:
    """The service: its models, their checkpoints, and the calls that it got.

    Attributes:
        url: Where it is.
        rates: The learning rate of each update, as it came, by model.
        batches: What each was computed from, likewise.
        models: The models, in the order in which they were made.
        kept: Checkpoints, by their paths.
        fails_once_after: After how many updates of a model it refuses the next one, once.
    """

    url: str = ""
    rates: dict[str, list[float]] = field(default_factory=dict)
    batches: dict[str, list[Any]] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    kept: dict[str, Model] = field(default_factory=dict)
    fails_once_after: int | None = None
    _results: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Return the answer to a call: its status, its media type and its body."""
        with self._lock:
            call = path.removeprefix("/api/v1/")
            if call == "retrieve_future":
                return 200, *self._results[json.loads(body)["request_id"]]
            if call == "forward_backward":
                return self._promise(PROTOBUF, self._learnt(body))
            if call.startswith("sessions/") and call.endswith("/finish"):
                return 200, *_json({})
            found = getattr(self, f"_{call.replace('/', '_')}", None)
            if found is None:
                return 404, *_json({"detail": f"the stand-in knows no {path}"})
            return found(json.loads(body) if body else {})  # type: ignore[no-any-return]

    def _promise(self, media: str, result: bytes) -> tuple[int, str, bytes]:
        number = f"request-{len(self._results)}"
        self._results[number] = (media, result)
        return 200, *_json({"request_id": number, "model_id": None})

    def _learnt(self, body: bytes) -> bytes:
        asked = wire.ForwardBackwardRequest()
        asked.ParseFromString(body)
        assert asked.loss_fn == "cross_entropy"
        said = wire.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
        self.batches[asked.model_id].append(asked.data)
        said.metrics["loss:sum"] = self.models[asked.model_id].learn(asked.data)
        return bytes(said.SerializeToString())

    def _optim_step(self, asked: dict[str, Any]) -> tuple[int, str, bytes]:
        rates = self.rates[asked["model_id"]]
        if len(rates) == self.fails_once_after:
            self.fails_once_after = None
            return 403, *_json({"detail": "this job has lost its machine"})
        rates.append(asked["adam_params"]["learning_rate"])
        self.models[asked["model_id"]].update(asked["adam_params"])
        return self._promise(*_json({"type": "optim_step", "metrics": {}}))

    def _create_model(self, asked: dict[str, Any]) -> tuple[int, str, bytes]:
        number = self._made(asked, Model.new())
        return self._promise(*_json({"type": "create_model", "model_id": number}))

    def _load_weights(self, asked: dict[str, Any]) -> tuple[int, str, bytes]:
        assert asked["optimizer"]
        number = self._made(asked, self.kept[asked["path"]].copy())
        said = {"type": "load_weights", "model_id": number, "path": asked["path"]}
        return self._promise(*_json(said))

    def _made(self, asked: dict[str, Any], model: Model) -> str:
        number = f"{asked['session_id']}:train:{asked['model_seq_id']}"
        self.models[number], self.rates[number], self.batches[number] = model, [], []
        return number

    def _save_weights(self, asked: dict[str, Any]) -> tuple[int, str, bytes]:
        path = f"tinker://{asked['model_id']}/weights/{asked['path']}"
        self.kept[path] = self.models[asked["model_id"]].copy()
        return self._promise(*_json({"type": "save_weights", "path": path}))

    def _get_info(self, asked: dict[str, Any]) -> tuple[int, str, bytes]:
        known = {"model_name": "stand-in", "arch": "table"}
        return 200, *_json({"type": "get_info", "model_data": known, "model_id": asked["model_id"]})

    def _create_session(self, _asked: dict[str, Any]) -> tuple[int, str, bytes]:
        number = f"session-{len(self._results)}-{len(self.models)}"
        return 200, *_json({"type": "create_session", "session_id": number})

    def _client_config(self, _asked: dict[str, Any]) -> tuple[int, str, bytes]:
        return 200, *_json({})

    _client_dynamic_config = _client_config

    def _session_heartbeat(self, _asked: dict[str, Any]) -> tuple[int, str, bytes]:
        return 200, *_json({"type": "session_heartbeat"})

    def _telemetry(self, _asked: dict[str, Any]) -> tuple[int, str, bytes]:
        return 200, *_json({"status": "accepted"})


def _json(found: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(found).encode()


@contextmanager
def tinker_server(fails_once_after: int | None = None) -> Iterator[Tinker]:
    """Run the stand-in on this machine."""
    service = Tinker(fails_once_after=fails_once_after)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, media, answer = service.answer(self.path, body)
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
