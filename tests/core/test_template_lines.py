"""A template has one element per line, so that a change of one field is a change of one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings

LONGEST = 160
SPRITE = "components/sprite.html"
"""One icon per line, as their source draws it: a path is one word, however long it is."""
TEMPLATES = Path(settings.BASE_DIR) / "templates"


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_line_of_a_template_is_too_long_to_review(path):
    lines = enumerate(path.read_text().splitlines(), 1)
    is_sprite = path == TEMPLATES / SPRITE
    too_long = {number: line for number, line in lines if len(line) > LONGEST and not (is_sprite and "<symbol" in line)}
    assert not too_long


def test_most_lines_are_short():
    """The formatter cannot break a line that consists of one tag or one text."""
    lines = [len(line) for path in TEMPLATES.rglob("*.html") for line in path.read_text().splitlines() if line.strip()]
    lines.sort()
    assert lines[len(lines) // 2] < 60
    assert lines[len(lines) * 95 // 100] < 110
