"""Durations and sizes: a number and a unit in every form, and exactly the same value when nobody changed it."""

from __future__ import annotations

import pytest

from boilerhouse.core.quantities import DURATION, SIZE
from tests.make import make_pool, make_sync_spec
from tests.pages import text_of


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("text", "unit"),
    [("30", ""), ("min", "min"), ("-5", "s"), ("5 weeks", ""), ("5 s x", ""), ("9999999", "d"), ("\u0663", "s"), ("1e3", "s"),
     ("0.0001", "s"), ("1" * 50, "s"), ("5", "parsec"), ("", "s")],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text, unit):
    with pytest.raises(ValueError, match="Enter"):
        DURATION.parse(text, unit)


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("text", "unit", "ms"),
    [("30", "s", 30_000), ("1.5", "h", 5_400_000), ("0.5", "s", 500), ("0", "", 0), ("90 min", "s", 5_400_000),
     ("1 h 30 min", "d", 5_400_000), ("1 h 30", "min", 5_400_000), ("250 ms", "s", 250), (" 7 ", "d", 604_800_000)],
)  # fmt: skip
def test_a_unit_in_the_text_is_stronger_than_the_chosen_one(text, unit, ms):
    assert DURATION.parse(text, unit) == ms


@pytest.mark.any_database
@pytest.mark.parametrize("ms", [0, 1, 999, 1000, 1500, 90_000, 5_400_000, 604_800_000, 31_536_000_000, 86_461_001])
def test_a_duration_is_shown_as_it_can_be_typed(ms):
    assert DURATION.parse(*DURATION.split(ms)) == ms
    assert DURATION.parse(DURATION.show(ms)) == ms


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("mb", "shown"), [(512, "512 MB"), (1024, "1 GB"), (1536, "1536 MB"), (6144, "6 GB"), (0, "0")]
)
def test_a_size_is_shown_in_the_largest_unit_that_is_exact(mb, shown):
    assert SIZE.show(mb) == shown
    assert SIZE.parse(shown) == mb


def test_the_admin_shows_durations_and_sizes_with_their_units(admin_client, data_dir):
    pool = make_pool("p", idle_timeout_ms=5_400_000)
    make_sync_spec(pool, id="s", interval_ms=300_000)
    page = text_of(admin_client.get("/admin/pools/pool/p/change/"))
    assert "90 min" in page
    assert "5400000" not in page
    for path in ("/admin/syncing/syncspec/", "/admin/tenants/syncspec/"):
        answer = admin_client.get(path)
        if answer.status_code == 200:
            assert "5 min" in text_of(answer)
            assert "300000" not in text_of(answer)
            break
    else:
        pytest.fail("no list of sync specs")
