"""A command in a tenant's container on the terminal of this process."""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from uuid import UUID

from boilerhouse.core.errors import BoilerhouseError
from pools.guest import kept
from tenants import activity, commands, idle

CHUNK = 64 * 1024
LOOK_EVERY_S = 2.0


def interact(container_id: UUID, words: tuple[str, ...], typed: int, shown: int) -> int:
    """Run a command on the terminal with these descriptors until it ends; its exit code.

    It is killed if this ends earlier, or if the tenant is released. Raises as ``commands.start``, and CommandLost.
    """
    size = os.get_terminal_size(shown)
    command_id = commands.new_id()
    wish = commands.Wish(command=words, size=(size.columns, size.lines), timeout_ms=0)
    commands.start(container_id, command_id, wish)
    code: int | None = None
    try:
        with closing(commands.open_output(container_id, command_id, 0)) as command, _raw(typed), _resized() as resized:
            code = _pass_on(command, container_id, (typed, shown), resized)
    finally:
        if code is None:
            with suppress(BoilerhouseError):
                commands.kill(container_id, command_id)
    return code


def _pass_on(command: kept.Kept, container_id: UUID, ends: tuple[int, int], resized: int) -> int:
    typed, shown = ends
    waits_for, noted = [command.fileno(), resized, typed], 0.0
    while True:
        for message in command.arrived():  # the first ones came with the command's state
            if isinstance(message, kept.End):
                return message.exit_code
            if isinstance(message, kept.Output):
                _write(shown, message.data)
        ready, _, _ = select.select(waits_for, [], [], LOOK_EVERY_S)
        if not ready:
            activity.claimed(container_id)  # raises if the tenant is released
        if resized in ready:
            os.read(resized, CHUNK)
            size = os.get_terminal_size(shown)
            command.send(kept.window_frame(size.columns, size.lines))
        if typed in ready:
            data = os.read(typed, CHUNK)
            if not data:
                waits_for.remove(typed)
            command.send(kept.input_frames(data or b"\x04", is_last=False))
            if time.monotonic() - noted > idle.SLACK.total_seconds():
                noted = time.monotonic()
                idle.note_activity(container_id)


def _write(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]


@contextmanager
def _raw(end: int) -> Iterator[None]:
    """Every key goes to the command."""
    before = termios.tcgetattr(end)
    tty.setraw(end)
    try:
        yield
    finally:
        termios.tcsetattr(end, termios.TCSADRAIN, before)


@contextmanager
def _resized() -> Iterator[int]:
    """A descriptor that is readable when the terminal has got another size."""
    heard, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda *_: os.write(told, b"w"))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(heard)
        os.close(told)
