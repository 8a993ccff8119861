"""The product and its baseline in alternation, each after a pause, as an idle client asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench import figures

QUIET_S = 0.3
COUNT = 25


def alternating(rounds: int, *acts: Callable[[], object], count: int = COUNT) -> list[dict[str, Any]]:
    """The figures of each act. A round runs each ``count`` times, in an order that is reversed every second time."""
    times: list[list[list[float]]] = [[] for _ in acts]
    for _ in range(rounds):
        of_round: list[list[float]] = [[] for _ in acts]
        for number in range(count):
            order = list(enumerate(acts))
            for which, act in order if number % 2 else reversed(order):
                time.sleep(QUIET_S)
                began = time.perf_counter()
                act()
                of_round[which].append((time.perf_counter() - began) * 1000)
        for all_times, one in zip(times, of_round, strict=True):
            all_times.append(one)
    return [figures.of(one) for one in times]
