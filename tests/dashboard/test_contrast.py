"""WCAG contrast of every pair of colours that is used together, in both themes."""

from __future__ import annotations

import re

import pytest
from django.conf import settings

TOKEN = re.compile(r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}),\s*(#[0-9a-f]{6})\)")
TONES = ("ok", "busy", "warn", "error", "idle", "unknown")
GROUNDS = ("bg", "surface", "sunken", "hover", "selected")
PAIRS = [(ink, ground, 4.5) for ink in ("ink", "ink-2", "ink-3", "ember") for ground in GROUNDS]
PAIRS += [(tone, ground, 4.5) for tone in TONES for ground in (*GROUNDS, f"{tone}-bg")]
PAIRS += [(ink, f"{tone}-bg", 4.5) for tone in TONES for ink in ("ink", "ink-2")]
PAIRS += [("on-ember", "ember", 4.5), ("on-ember", "ember-hover", 4.5), ("on-error", "error-solid", 4.5)]
PAIRS += [("ember", "ember-tint", 4.5), ("ink", "ember-tint", 4.5)]
PAIRS += [("focus", ground, 3.0) for ground in (*GROUNDS, "ember-tint", "error-bg", "warn-bg")]
PAIRS += [("control", ground, 3.0) for ground in ("bg", "surface", "sunken")]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_tokens_has_enough_contrast(theme):
    sheet = (settings.BASE_DIR / "static" / "tokens.css").read_text()
    tokens = {name: (light, dark) for name, light, dark in TOKEN.findall(sheet)}
    low = {
        (front, back): round(ratio(tokens[front][theme], tokens[back][theme]), 2)
        for front, back, minimum in PAIRS
        if ratio(tokens[front][theme], tokens[back][theme]) < minimum
    }

    assert not low
