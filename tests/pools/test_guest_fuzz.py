"""Random requests to an agent that is built with checks of addresses and of undefined behaviour: no fault, and it lives."""

from __future__ import annotations

import random
import re
import subprocess
import time

import pytest

from pools import guest
from pools.guest import connections, frames
from tests.guest_agent import AGENT, sealed_agent

SOURCES = AGENT.parents[1]
FLAGS = ["-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FIRST = [b"R", b"A", b"L", b"F", b"K", b"\xff"]
LATER = [b"I", b"E", b"S", b"W", b"Q", b"z"]
TAGS = [bytes([tag]) for tag in b"aednkoutivpqxmfz"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("checked") / "agent"
    names = re.search(r"^SOURCES = (.*?)\n\n", (SOURCES / "Makefile").read_text(), re.DOTALL | re.MULTILINE)
    sources = [SOURCES / name for name in names[1].replace("\\", "").split()]
    subprocess.run(["gcc", *FLAGS, "-o", path, *sources], check=True, timeout=120)
    return path


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_no_request_makes_a_fault(tmp_path, monkeypatch, program, count):
    chance = random.Random(count)
    with sealed_agent(tmp_path / "run", monkeypatch, program) as agent:
        for _ in range(count):
            send(connections.open_socket(agent.directory, is_sealed=True), chance)
        deadline = time.monotonic() + 30
        while not is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert not re.search("Sanitizer|runtime error", agent.errors()), agent.errors()


def send(connection, chance):
    """A request, or a good one and what follows it, with bytes that are wrong."""
    body = chance.randbytes(chance.choice([0, 1, 4, 5, 16, 17, 25, chance.randrange(80)]))
    item = frames.frame(chance.choice(TAGS), body)
    payload = chance.choice([body, item, item * 3, frames.frame(b"a", b"true") + item])
    start = frames.frame(chance.choice(FIRST), payload)
    kept = frames.frame(b"k", chance.randbytes(16) + bytes([chance.randrange(2)]))
    good = frames.request(("cat",), more=kept, wants_input=True, timeout_ms=200)
    later = b"".join(frames.frame(chance.choice(LATER), body) for _ in range(5))
    with connection:
        connection.sendall(chance.choice([start, start[: chance.randrange(len(start))], good + later, good + body]))


def is_alive():
    try:
        return guest.run(None, ("echo", "alive"), 10_000).stdout == b"alive\n"
    except connections.NoAgent:  # as many sessions as there may be
        return False
