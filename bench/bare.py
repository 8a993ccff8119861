"""The bare things: what a claim, a release or an answer would cost with nothing of ours around it."""

from __future__ import annotations

import http.client
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import refill

CONFIG, SECRETS = {"model": "small", "greeting": "x" * 1000}, {f"SECRET_{n}": "y" * 100 for n in range(3)}
"""What a claim of the bench brings along."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory, as that of a claim's config and secrets is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bh-bench-") as directory:
        yield Path(directory)


@contextmanager
def disk() -> Iterator[Path]:
    """A directory where volumes are, too."""
    from django.conf import settings

    with tempfile.TemporaryDirectory(dir=settings.BOILERHOUSE_DATA_DIR, prefix="bare-") as directory:
        yield Path(directory)


def claim(runtime: Any, name: str, directory: Path) -> None:
    """One inspect of the container, and the files of a claim by write and rename."""
    for file, content in {"config.json": json.dumps(CONFIG), **SECRETS, "claim.json": "{}" * 50}.items():
        draft = directory / f".{secrets.token_hex(4)}"
        draft.write_text(content)
        draft.rename(directory / file)
    runtime.inspect(name)


def claims(runtime: Any, names: list[str], directory: Path) -> Callable[[], Callable[[], None]]:
    """To prepare threads for ``claim``, of one container after the other."""
    left = iter(names * 100)

    def prepare() -> Callable[[], None]:
        own = directory / secrets.token_hex(4)
        own.mkdir()
        runtime.inspect(names[0])
        return lambda: claim(runtime, next(left), own)

    return prepare


def ask_container(endpoint: dict[str, Any]) -> None:
    """One GET on a new connection; ends the bench when it is not answered with 200."""
    parts = urlsplit(endpoint["url"])
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", "/")
    if connection.getresponse().status != 200:
        raise SystemExit("the container did not answer")
    connection.close()


def end(runtime: Any, pool: str) -> float:
    """Milliseconds of stop and rm, by plain calls, of a container like those of the pool."""
    from pools import volumes

    ((container_id, plan),) = refill.plans(pool, 1)
    runtime.create(plan)
    runtime.start(plan.name)
    time.sleep(0.5)
    took = timed(lambda: (runtime.stop(plan.name, 0), runtime.remove(plan.name)))
    volumes.wipe(container_id)
    return took


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
