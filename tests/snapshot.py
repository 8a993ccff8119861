"""The content of the database, to compare before and after."""

from __future__ import annotations

import json

from django.apps import apps

WATCHED = ("core", "pools", "syncing", "tenants", "notifications")
MOVES = {"IdempotencyRecord", "Process", "QueueHealth", "Lease", "SinkProbe"}
OF_PROCESSES = {"Process", "QueueHealth", "Lease"}
"""What the processes themselves write all the time."""


def snapshot() -> str:
    """Every row that a request could have changed, but for when a key was last used."""
    return _rows(WATCHED, MOVES)


def every_row() -> str:
    """The rows of every table, messages of queues and kept answers included."""
    return _rows(tuple(config.label for config in apps.get_app_configs()), OF_PROCESSES)


def _rows(labels: tuple[str, ...], left_out: set[str]) -> str:
    found: dict[str, list[dict[str, object]]] = {}
    for label in labels:
        for model in apps.get_app_config(label).get_models():
            if model.__name__ not in left_out:
                rows = list(model._default_manager.order_by("pk").values())
                found[model._meta.label] = [{k: v for k, v in row.items() if k != "last_used_at"} for row in rows]
    return json.dumps(found, default=str, sort_keys=True)
