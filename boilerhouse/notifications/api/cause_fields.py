"""Serializers of causes and their mutes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.attention.cause import Cause, Kind, Severity
from boilerhouse.notifications.incidents import key_of
from boilerhouse.notifications.models import Mute
from boilerhouse.notifications.mutes import LONGEST, id_of


class MuteInput(ApiSerializer):
    for_ms = serializers.IntegerField(
        min_value=1000, max_value=int(LONGEST.total_seconds() * 1000), help_text="How long, at most 30 days."
    )


class MuteOutput(ApiSerializer):
    until = serializers.DateTimeField()
    by = serializers.CharField(allow_blank=True, help_text="Who muted it, as in events; empty: an earlier version.")
    created_at = serializers.DateTimeField()


class CauseOutput(ApiSerializer):
    """One thing that needs an operator, however many objects it affects."""

    id = serializers.CharField(help_text="The same for as long as the cause lasts.")
    key = serializers.CharField(help_text="As in notifications.")
    kind = serializers.ChoiceField([(kind.value, kind.value) for kind in Kind])
    severity = serializers.ChoiceField([(one.value, one.value) for one in Severity])
    title = serializers.CharField()
    text = serializers.CharField(help_text="Why, and what it blocks.")
    pool_ids = serializers.ListField(child=serializers.CharField(), help_text="Empty: the whole deployment.")
    since = serializers.DateTimeField()
    mute = MuteOutput(allow_null=True, help_text="Null if notifications of it are sent.")


def render_mute(row: Mute) -> dict[str, Any]:
    return {"until": row.until, "by": row.muted_by, "createdAt": row.created_at}


def render_cause(cause: Cause, mute: Mute | None) -> dict[str, Any]:
    return {
        "id": id_of(cause.key), "key": key_of(cause.key), "kind": cause.kind, "severity": cause.severity,
        "title": cause.title, "text": cause.text, "poolIds": list(cause.pool_ids), "since": cause.since,
        "mute": render_mute(mute) if mute else None,
    }  # fmt: skip
