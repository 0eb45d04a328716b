"""Draw the pictures of the dashboard, of trainings that run meanwhile: `make screenshots`."""

from __future__ import annotations

import math
import random
import shutil
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import sync_playwright

from pacesetter import Client

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tests")]

from demo_service import ServiceProcess  # noqa: E402

import lawful  # noqa: E402

IMAGES = ROOT / "docs/img/dashboard"
COLOURS = 96
"""How many colours a picture has: few are enough for pages, and keep it small."""

SHOTS = {
    "overview": ("", "light", 740),
    "session": ("sessions/vit-base-1", "dark", 1000),
    "order": ("sessions/gpt-small-7/control/cooldown", "light", 560),
    "problems": ("problems", "dark", 620),
    "create": ("create", "light", 760),
    "plan": ("sessions/gpt-124m/plan", "light", 1080),
}
"""By the name of the picture: the page, the scheme, and the height."""

STEPS = 940
"""How far the trainings are when the pictures are taken."""

PLANS: dict[str, dict[str, Any]] = {
    "vit-base-1": {
        "schedule": {"kind": "warmup_cosine", "warmup_steps": 200, "total_steps": 2000},
        "base_lr": 3e-4,
        "controllers": [{"kind": "plateau", "metric": "val_loss", "patience": 3}],
        "total_steps": 2000,
    },
    "gpt-small-7": {
        "schedule": {"kind": "wsd", "total_steps": 3000, "warmup_steps": 100, "decay_steps": 600},
        "base_lr": 6e-4,
        "total_steps": 3000,
    },
    "resnet-9": {
        "schedule": {"kind": "cosine", "total_steps": 1500},
        "base_lr": 0.1,
        "total_steps": 1500,
    },
}


def train(client: Client, http: httpx.Client, noise: random.Random, over: threading.Event) -> None:
    """Train all plans side by side, with orders on the way, and then slowly until it is over."""
    sessions = {
        name: client.session(
            name, labels={"owner": "kim"}, steps_per_epoch=100, max_lookahead=60, **plan
        )
        for name, plan in PLANS.items()
    }
    step = 0
    while not over.is_set():
        for name, session in sessions.items():
            session.lr(step)
            session.report(step, loss=1 + 4 * math.exp(-step / 400) + noise.random() / 5)
            if name == "vit-base-1" and step % 50 == 0:
                floor = 4 * math.exp(-step / 200) + 1.3
                session.report(step, val_loss=max(floor, 1.45) + noise.random() / 50)
        if step == 400:
            order(http, "gpt-small-7", "kim", kind="scale", factor=0.5, reason="spikes")
        if step == 600:
            order(http, "vit-base-1", "lee", kind="rewarm", steps=60, factor=0.2, reason="new data")
            order(http, "vit-base-1", "kim", kind="cooldown", steps=300, at=1700, reason="planned")
        step += 1
        time.sleep(0.002 if step < STEPS else 0.3)
    for session in sessions.values():
        session.close()


def order(http: httpx.Client, name: str, actor: str, **action: object) -> None:
    """Order something in the name of an operator."""
    headers = {"Pacesetter-Actor": actor}
    http.post(f"/v1/sessions/{name}/actions", json=action, headers=headers).raise_for_status()


def trouble(http: httpx.Client) -> None:
    """Create sessions in which something is wrong."""
    http.post("/v1/sessions", json={"name": "llm-night", "base_lr": 3e-4, "total_steps": 400})
    sync(http, "llm-night", 0, 60)
    losses = [3 - 0.05 * step if step < 30 else 1.5 + 0.12 * (step - 30) for step in range(60)]
    reports = [{"step": step, "metrics": {"loss": loss}} for step, loss in enumerate(losses)]
    sync(http, "llm-night", 60, 4, reports=reports)
    http.post("/v1/sessions", json={"name": "big-run", "base_lr": 1e-3, "ranks": 4})
    for rank in range(3):
        sync(http, "big-run", 0, 8, rank=rank)
    sync(http, "big-run", 4, 4, rank=1, applied={"step": 3, "values": {"lr": 0.002}})
    http.post("/v1/sessions", json={"name": "old-job", "base_lr": 3e-4})
    sync(http, "old-job", 0, 8)
    said = {"outcome": "failed", "reason": "CUDA out of memory on rank 3"}
    http.post("/v1/sessions/old-job/finish", json=said)


def plan(http: httpx.Client, name: str) -> None:
    """Train a session whose loss follows the law of plans to its half, and a probe of it."""
    http.post("/v1/sessions", json={"name": name, **lawful.SPEC}).raise_for_status()
    rates = lawful.train(http, name, lawful.SEEN, [])
    probe = f"{name}-probe-{lawful.SEEN}"
    http.post(f"/v1/sessions/{name}/fork", json={"name": probe, "step": lawful.SEEN})
    order(http, probe, "kim", kind="cooldown", steps=lawful.PROBE, ease={"kind": "linear"})
    lawful.train(http, probe, lawful.SEEN + lawful.PROBE, rates)


def sync(http: httpx.Client, name: str, step: int, count: int, **more: object) -> None:
    """Call as a trainer that stands at a step."""
    body = {"want": {"start": step, "count": count}, "progress": {"step": step}, "attempt": 1}
    http.post(f"/v1/sessions/{name}/sync", json={**body, **more}).raise_for_status()


def photograph(url: str) -> None:
    """Take the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, (place, scheme, height) in SHOTS.items():
            dark = scheme == "dark"
            page = browser.new_page(
                viewport={"width": 1200, "height": height},
                color_scheme="dark" if dark else "light",
                locale="en-GB",
                timezone_id="UTC",
            )
            page.goto(f"{url}/{place}")
            page.wait_for_timeout(2500)  # charts and pictures are drawn by then
            drawn = Image.open(BytesIO(page.screenshot())).convert("RGB")
            small = drawn.quantize(COLOURS, dither=Image.Dither.NONE)
            small.save(IMAGES / f"{name}.png", optimize=True)
            page.close()
        browser.close()


def main() -> None:
    """Train, and take pictures meanwhile."""
    over = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(Path(folder)) as service,
        httpx.Client(base_url=service.url, trust_env=False, timeout=60) as http,
        Client(service.url) as client,
    ):
        trouble(http)
        plan(http, "gpt-124m")
        arguments = (client, http, random.Random(1), over)  # noqa: S311 - noise
        training = threading.Thread(target=train, args=arguments)
        training.start()
        try:
            while (http.get("/v1/sessions/vit-base-1/status").json().get("step") or 0) < STEPS:
                time.sleep(0.5)
            photograph(service.url)
        finally:
            over.set()
            training.join()


if __name__ == "__main__":
    main()
