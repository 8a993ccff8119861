"""Templates, style sheets and scripts have short lines, so that a small change is a small diff."""

from __future__ import annotations

from pathlib import Path
from statistics import median, quantiles

import pytest

from boilerhouse.dashboard.templatetags.badges import schedule
from syncing.models import SyncSpec

ROOT = Path(__file__).parents[2]
WRITTEN_BY_A_SCRIPT = {"sprite.html"}  # scripts/vendor.sh makes and compares it
MEDIAN, P95, LONGEST = 60, 110, 160


@pytest.mark.any_database
@pytest.mark.parametrize("pattern", ["templates/**/*.html", "static/*.css", "static/*.js"])
def test_lines_of_templates_style_sheets_and_scripts_are_short(pattern):
    """Half of the lines of templates were once above 120 characters, the longest 2,239."""
    lengths = {}
    for path in ROOT.glob(pattern):
        if path.name not in WRITTEN_BY_A_SCRIPT:
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                lengths[f"{path.relative_to(ROOT)}:{number}"] = len(line)

    assert {place: length for place, length in lengths.items() if length > LONGEST} == {}
    assert median(lengths.values()) < MEDIAN
    assert quantiles(lengths.values(), n=20)[-1] < P95


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (SyncSpec(on_claim=True, on_release=True, interval_ms=900_000), "claim, release, every 15 min"),
        (SyncSpec(on_claim=False, on_release=True, interval_ms=None), "release"),
        (SyncSpec(on_claim=True, on_release=False, interval_ms=900_000), "claim, every 15 min"),
        (SyncSpec(on_claim=False, on_release=False, interval_ms=None), ""),
    ],
)
def test_when_a_spec_syncs_is_a_list_of_what_is_on(spec, words):
    assert schedule(spec) == words
