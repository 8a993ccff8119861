"""End releases that lost the name of their container to a swap: they could never go on, and shut their tenant out.

Such a claim had not been decided, so there is nothing of its tenant to save.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations
from django.db.models.functions import Now


def end(apps: Any, schema_editor: Any) -> None:
    rows = apps.get_model("tenants", "Assignment").objects.filter(
        state="releasing", container_ref__isnull=True, was_assigned=False
    )
    rows.update(
        state="ended", step="", owner=None, next_attempt_at=None, config=None, metadata=None, secrets=None,
        ended_at=Now(), state_changed_at=Now(),
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("tenants", "0010_ended_assignments")]

    operations = [migrations.RunPython(end, migrations.RunPython.noop)]
