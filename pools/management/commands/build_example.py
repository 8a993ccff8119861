"""Build the example workload's image, without a registry."""

from __future__ import annotations

from typing import Any

from boilerhouse.process import commands
from pools import images


class Command(commands.Command):
    help = "Build the image of the example workload from this host's static busybox."

    def handle(self, *args: Any, **options: Any) -> None:
        for line in images.build_example():
            self.say(line)
        self.stdout.write(images.EXAMPLE_IMAGE)
