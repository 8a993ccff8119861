"""The pages' icons as one sprite: our own shapes, and those of Lucide that ``icons/lucide.txt`` names.

usage: sprite.py LUCIDE_PACKAGE OUTPUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent / "icons"


def symbol(name: str, package: Path) -> str:
    """The drawing of one icon without its frame: size, stroke and colour are the style sheet's."""
    svg = (package / "icons" / f"{name}.svg").read_text()
    shapes = re.findall(r"<(?:path|circle|rect|line|polyline|polygon|ellipse)\b[^>]*/>", svg)
    assert shapes, name
    drawn = "".join(re.sub(r"\s+", " ", shape).replace(" />", "/>") for shape in shapes)
    return f'  <symbol id="i-{name}" viewBox="0 0 24 24">{drawn}</symbol>'


def main(package: Path, output: Path) -> None:
    own = (HERE / "own.svg").read_text().rstrip("\n").split("\n")
    lucide = [symbol(name, package) for name in (HERE / "lucide.txt").read_text().split()]
    lines = ['<svg class="sprite" aria-hidden="true" focusable="false">', *own, *lucide, "</svg>"]
    output.write_text("\n".join(lines) + "\n")


main(Path(sys.argv[1]), Path(sys.argv[2]))
