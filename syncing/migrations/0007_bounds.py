"""Intervals that were taken before they had a highest value, and that overflow where they are used."""

from django.db import migrations

TEN_YEARS_MS = 3650 * 86_400_000


def clamp(apps, _editor):
    apps.get_model("syncing", "SyncSpec").objects.filter(interval_ms__gt=TEN_YEARS_MS).update(interval_ms=TEN_YEARS_MS)


class Migration(migrations.Migration):

    dependencies = [
        ("syncing", "0006_run_lists"),
    ]

    operations = [
        migrations.RunPython(clamp, migrations.RunPython.noop),
    ]
