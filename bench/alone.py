"""A claim that comes alone, after a while in which nobody asked for anything, beside claims in a row."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

from bench import bare, figures
from bench.load import Tenants
from bench.server import Server

QUIET_S = {"afterThird": 0.3, "afterSecond": 1.0}
CLAIMS, WARM_UP, ROUNDS = 25, 3, 2
COMMAND = {"command": ["true"]}


def measure(server: Server, *, quick: bool = False) -> dict[str, Any]:
    """Claims with config and secrets: in a row, after each quiet, with a first command, and to the first answer.

    The bare claim that follows each comes after the same quiet.
    """
    tenants, rounds = Tenants(server, "alone"), 1 if quick else ROUNDS
    claim = partial(tenants.claim, config=bare.CONFIG, secrets=bare.SECRETS)
    ways: dict[str, tuple[float, Callable[[], object]]] = {
        "inARow": (0.0, claim),
        **{name: (quiet_s, claim) for name, quiet_s in QUIET_S.items()},
        "firstAnswer": (QUIET_S["afterThird"], lambda: bare.ask_container(claim()["endpoints"][0])),
        "firstCommand": (QUIET_S["afterThird"], partial(claim, **COMMAND)),
    }
    found: dict[str, Any] = {}
    for name, (quiet_s, act) in ways.items():
        times, lone = [], []
        for _ in range(rounds):
            tenants.release_all()
            tenants.size(CLAIMS + WARM_UP, CLAIMS + WARM_UP)
            ours, theirs = _one_by_one(tenants, act, quiet_s)
            times.append(ours)
            lone.append(theirs)
        tenants.expect_warm()
        found[name] = figures.beside(figures.of(times), figures.of(lone))
    tenants.end()
    return found


def _one_by_one(tenants: Tenants, act: Callable[[], object], quiet_s: float) -> tuple[list[float], list[float]]:
    ours, theirs, names = [], [], cycle(tenants.names())
    with bare.scratch() as directory:
        for _ in range(CLAIMS + WARM_UP):
            time.sleep(quiet_s)
            ours.append(bare.timed(act))
            time.sleep(quiet_s)
            theirs.append(bare.timed(partial(bare.claim, tenants.server.runtime, next(names), directory)))
    return ours[WARM_UP:], theirs[WARM_UP:]
