"""Where sinks are queried: in the claim itself if they are near, in other threads if not (ADR 25)."""

from __future__ import annotations

import threading
import time

import pytest

from syncing import places, sink_checks
from syncing.markers import Manifest, Marker
from syncing.sinks import LocalSink
from tests.make import make_sync_spec

MARKER = Marker("alice", "d", "x/alice", 1, "run", "closed", "2026-01-01T00:00:00Z", Manifest(files=1, bytes=1))


class Asked(LocalSink):
    """A slow sink that records its queries and their threads."""

    takes_s = 0.0
    marker: Marker | None = None
    questions: list[tuple[str, bool]]

    def _note(self, what):
        self.questions.append((what, threading.current_thread() is threading.main_thread()))
        time.sleep(self.takes_s)

    def read(self, key, deadline_s):
        self._note("marker")
        return (self.marker.dump(), "") if self.marker else (None, "")

    def has_objects(self, location, deadline_s):
        self._note("objects")
        return self.marker is not None


@pytest.fixture
def spec(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(sink_checks, "_took_s", {})
    sink = type("Own", (Asked,), {"questions": []})(tmp_path)
    monkeypatch.setattr(places, "is_settled", lambda _spec, _sink: True)
    spec = make_sync_spec()
    monkeypatch.setattr(type(spec), "resolved_sink", lambda _self: sink)
    spec.sink_server = sink
    return spec


def ask(spec):
    type(spec.sink_server).questions = []
    sink_check = sink_checks.check_spec(spec, "alice")
    return sink_check, sink_check.answer(), sorted(spec.sink_server.questions)


def test_a_sink_that_is_not_known_is_asked_by_others_and_a_near_one_by_the_claim_itself(spec):
    _, _, first = ask(spec)
    sink_check, (sink_state,), then = ask(spec)

    assert first == [("marker", False), ("objects", False)]
    assert then == [("marker", True), ("objects", True)]
    assert sink_check.is_near(0)
    assert sink_state.is_empty


def test_of_a_near_sink_with_a_marker_nothing_more_is_asked(spec):
    ask(spec)
    type(spec.sink_server).marker = MARKER
    _, (sink_state,), questions = ask(spec)

    assert questions == [("marker", True)]
    assert sink_state.marker == MARKER
    assert not sink_state.is_empty


def test_a_sink_that_became_slow_is_asked_by_others_from_then_on_and_the_claims_turn_is_given_away(spec):
    ask(spec)
    type(spec.sink_server).takes_s = 2 * sink_checks.NEAR_S
    _, _, surprised = ask(spec)
    sink_check, _, later = ask(spec)

    assert all(is_own for _, is_own in surprised)
    assert not any(is_own for _, is_own in later)
    assert len(later) == 2
    again = sink_checks.check_spec(spec, "alice")
    assert not again.is_near(0)
    again.answer()
    assert sink_check.is_near(0), "it has answered"
