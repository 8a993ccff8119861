"""The content of the database, to compare before and after."""

from __future__ import annotations

import json

from django.apps import apps

WATCHED = ("core", "pools", "syncing", "tenants")
MOVES = {"IdempotencyRecord", "Process", "QueueHealth", "Lease", "SinkProbe"}


def snapshot() -> str:
    """Every row that a request could have changed, but for when a key was last used."""
    found: dict[str, list[dict[str, object]]] = {}
    for label in WATCHED:
        for model in apps.get_app_config(label).get_models():
            if model.__name__ not in MOVES:
                rows = list(model._default_manager.order_by("pk").values())
                found[model.__name__] = [{k: v for k, v in row.items() if k != "last_used_at"} for row in rows]
    return json.dumps(found, default=str, sort_keys=True)
