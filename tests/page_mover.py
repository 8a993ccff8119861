"""Changes what an open page shows: a process that writes rows into a running deployment, told by lines of JSON.

``["build"]``, ``["clear"]`` and ``["move", kind, state, id]``; each is answered with a line when it has committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass
class Mover:
    """The process, from the side of the test."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, environment: dict[str, str]) -> Mover:
        command = [sys.executable, "-m", "tests.page_mover"]
        return cls(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def tell(self, *words: str) -> None:
        """Returns when it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer == "done\n", f"{words}: {answer}"

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _clear() -> None:
    """The deployment has neither demo data nor objects of ``page_world``."""
    from boilerhouse.core.models import AuditEntry, Event
    from boilerhouse.operations.demo_data import filling
    from tests import page_world

    filling.remove()
    for kind, states in page_world.KINDS.items():
        for state in states:
            page_world.drop(kind, page_world.id_of(kind, state))
    Event.objects.all().delete()
    AuditEntry.objects.all().delete()


def main() -> None:
    import django

    django.setup()
    from tests import page_world

    deeds: dict[str, Any] = {"build": page_world.build, "clear": _clear, "move": page_world.move}
    for line in sys.stdin:
        name, *words = json.loads(line)
        deeds[name](*words)
        print("done", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boilerhouse.operations.demo_data.settings")
    main()
