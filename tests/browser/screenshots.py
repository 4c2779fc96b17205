"""Screenshots of every page of the dashboard, with real runs (`make screenshots`).

Starts a whole stack with an empty database and writes docs/pictures/dashboard/.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page
from sklearn.datasets import load_digits

from tests.browser_program import CHROMIUM, INSTALL, chromium
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures/dashboard"
MAX_HEIGHT = 2200
MAX_BYTES = 250_000
PLOTTED = """
figures => dispatchEvent(new Event('beforeprint')) &&
           [...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg, .nothing')) &&
           document.querySelectorAll('.plot').length >= figures && !document.querySelector('.waiting')
"""

MLP = {"name": "mlp", "params": {"hidden": [64, 64]}}
DIVERGING = {"name": "mlp", "params": {"init_scale": 100, "hidden": [64, 64]}}
CNN = {"name": "cnn", "params": {"channels": [8, 16]}}
TARGET = {"metric": "val_accuracy", "value": 0.95}
RATES = {"lr": {"log_uniform": [0.0003, 0.03]}}
COMPARISON = {
    "name": "Does KO train digits better than Adam?",
    "tasks": [
        {"dataset": "digits", "model": MLP, "budget": {"epochs": 6}, "target": TARGET, "diagnostics_every_steps": 40},
        {"dataset": "digits", "model": CNN, "budget": {"epochs": 4}, "target": TARGET},
    ],
    "optimizers": [
        {"name": "adam", "space": RATES},
        {"name": "ko", "params": {"base": "adam", "collision": "soft"}, "space": RATES},
        {"name": "sgd", "params": {"momentum": 0.9}, "space": {"lr": {"log_uniform": [0.003, 0.3]}}},
    ],
    "tuning": {"trials": 4},
    "seeds": {"max": 5},
    "tags": {"study": "first-look"},
}  # fmt: skip
RUNNING = {
    "name": "Lion or AdamW on longer budgets",
    "tasks": [{"dataset": "digits", "model": MLP, "budget": {"epochs": 150}}],
    "optimizers": [{"name": "adamw", "params": {"lr": 0.001}}, {"name": "lion", "params": {"lr": 0.0003}}],
    "seeds": {"max": 20},
}
JOB = {"dataset": "digits", "model": MLP, "optimizer": {"name": "ko", "params": {"lr": 0.002}}}


@contextmanager
def running_stack() -> Iterator[tuple[str, str]]:
    """Start a stack; yield its URL and its owner's key."""
    with tempfile.TemporaryDirectory(prefix="kotrain-pictures-") as folder:
        Path(folder).chmod(0o711)
        home = Path(folder, "home")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KOTRAIN_")}
        settings = {
            "KOTRAIN_HOME": str(home),
            "KOTRAIN_SLOTS": "2",
            "KOTRAIN_PORT": str(port),
            "KOTRAIN_BACKOFF_SECONDS": "0.1",
        }
        process = subprocess.Popen([sys.executable, "-P", "-m", "service.commands", "up"], env=environment | settings)
        try:
            until((home / "running.json").exists, 120)
            yield f"http://127.0.0.1:{port}", (home / "key").read_text().strip()
        finally:
            process.terminate()
            process.wait()


def digit_images() -> bytes:
    """300 of scikit-learn's digits as a zip of class folders."""
    digits, file = load_digits(), io.BytesIO()
    with ZipFile(file, "w") as archive:
        for row in range(300):
            image = io.BytesIO()
            Image.fromarray((digits.images[row] * 15).astype("uint8")).save(image, "PNG")
            archive.writestr(f"digits/{digits.target[row]}/{row}.png", image.getvalue())
    return file.getvalue()


class Lab:
    """Jobs and comparisons of several users, so that every page has content."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.owner = self.client(key)
        self.ada, self.grace = (
            self.client(self.checked_json(self.owner.post("/v1/keys", json={"user": name, "admin": False}))["key"])
            for name in ("ada", "grace")
        )

    def client(self, key: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    @staticmethod
    def checked_json(response: httpx2.Response) -> Any:
        assert response.is_success, response.text
        return response.json()

    def submit(self, client: httpx2.Client, **fields: Any) -> str:
        return str(self.checked_json(client.post("/v1/jobs", json=JOB | fields))["id"])

    def compare(self, client: httpx2.Client, body: dict[str, Any]) -> str:
        return str(self.checked_json(client.post("/v1/comparisons", json=body))["id"])

    def is_over(self, path: str) -> bool:
        return bool(self.owner.get(path).json()["status"] not in ("queued", "running"))

    def work(self) -> dict[str, str]:
        """Submit and train everything; return the ids that the pictures need."""
        self.checked_json(
            self.grace.post("/v1/datasets", params={"name": "handwriting", "format": "zip"}, content=digit_images())
        )
        finished = self.compare(self.ada, COMPARISON)
        brief = {"budget": {"epochs": 3}}
        ended = [
            self.submit(self.grace, dataset="images/handwriting", model=CNN, **brief),
            self.submit(self.grace, model=DIVERGING, optimizer={"name": "sgd", "params": {"lr": 100}}, **brief),
            self.submit(self.ada, time_limit_seconds=0.5, budget={"epochs": 5000}),
            self.submit(self.ada, optimizer={"name": "muon"} if self.has_optimizer("muon") else "adam", **brief),
        ]
        until(lambda: self.is_over(f"/v1/comparisons/{finished}"), 900)
        until(lambda: all(self.is_over(f"/v1/jobs/{job_id}") for job_id in ended), 300)
        running = self.compare(self.grace, RUNNING)
        watched = self.submit(
            self.ada, budget={"epochs": 3000}, diagnostics_every_steps=50, log_every_steps=20, priority=10
        )
        until(lambda: self.owner.get(f"/v1/jobs/{watched}").json()["progress"]["step"] > 1500, 300)
        until(lambda: self.owner.get(f"/v1/comparisons/{running}").json()["progress"]["succeeded"] > 5, 300)
        return {"finished": finished, "running": running, "watched": watched, "ended": ended[0]}

    def has_optimizer(self, optimizer: str) -> bool:
        return optimizer in {entry["name"] for entry in self.owner.get("/v1/catalog").json()["optimizers"]}


def pages(ids: dict[str, str]) -> dict[str, str]:
    """Name of the picture -> address."""
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job": f"/jobs/{ids['watched']}",
        "job-environment": f"/jobs/{ids['ended']}?tab=environment",
        "new-job": "/jobs/new",
        "comparisons": "/comparisons",
        "comparison": f"/comparisons/{ids['finished']}",
        "comparison-running": f"/comparisons/{ids['running']}",
        "new-comparison": "/comparisons/new",
        "leaderboard": "/leaderboard?dataset=digits&model=mlp",
        "data": "/data?show=images/handwriting",
        "keys": "/keys",
    }


ALSO_DARK_AND_NARROW = ("overview", "comparison", "job")


def shoot(page: Page, url: str, name: str) -> None:
    """Save a picture of a page once it is complete."""
    page.goto(url)
    page.wait_for_selector("main h1")
    page.wait_for_load_state("load")
    figures = 6 if name.removesuffix("-dark").removesuffix("-narrow") in ("job", "comparison") else 0
    until(lambda: page.evaluate(PLOTTED, figures))
    page.evaluate("() => document.fonts.ready.then(() => new Promise(done => setTimeout(done, 600)))")
    height = min(MAX_HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
    width = page.viewport_size["width"]  # type: ignore[index]
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("() => new Promise(done => setTimeout(done, 400))")
    image = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    save(image, PICTURES / f"{name}.png")
    page.set_viewport_size({"width": width, "height": 900})


def shoot_verdict(page: Page) -> None:
    """Save the top of the open comparison page for the README."""
    box = page.get_by_role("region", name="Differences", exact=True).bounding_box()
    assert box is not None
    height = box["y"] + box["height"] + 16
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}  # type: ignore[index]
    save(page.screenshot(clip=clip, full_page=True), PICTURES / "verdict.png")  # type: ignore[arg-type]


def save(image_bytes: bytes, path: Path) -> None:
    """Write a picture, with fewer colors if it would be too large."""
    image = Image.open(io.BytesIO(image_bytes)).convert("RGB")
    image.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def visit(browser: Browser, url: str, key: str | None, *, width: int = 1280, scheme: str = "light") -> Page:
    storage = [{"name": "kotrain.key", "value": key}] if key else []
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        storage_state={"cookies": [], "origins": [{"origin": url, "localStorage": storage}]},  # type: ignore[typeddict-item]
    )
    return context.new_page()


def main() -> None:
    if not CHROMIUM.exists():
        sys.exit(INSTALL)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with running_stack() as (url, key), chromium() as browser:
        addresses = pages(Lab(url, key).work())
        shoot(visit(browser, url, None), f"{url}/", "sign-in")
        page = visit(browser, url, key)
        for name, address in addresses.items():
            shoot(page, url + address, name)
            if name == "comparison":
                shoot_verdict(page)
        for scheme, width, suffix in (("dark", 1280, "dark"), ("light", 400, "narrow")):
            page = visit(browser, url, key, width=width, scheme=scheme)
            for name in ALSO_DARK_AND_NARROW:
                shoot(page, url + addresses[name], f"{name}-{suffix}")


if __name__ == "__main__":
    main()
