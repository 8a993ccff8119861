"""Numbers that were taken before they had a highest value, and that overflow where they are used."""

from django.db import migrations

TEN_YEARS_MS = 3650 * 86_400_000
MAX_MB = 8 << 20


def clamp(apps, _editor):
    apps.get_model("pools", "Pool").objects.filter(idle_timeout_ms__gt=TEN_YEARS_MS).update(idle_timeout_ms=TEN_YEARS_MS)
    for version in apps.get_model("pools", "WorkloadVersion").objects.only("spec_json").iterator():
        resources = version.spec_json.get("resources", {})
        if (resources.get("disk_mb") or 0) > MAX_MB:
            resources["disk_mb"] = MAX_MB
            version.save(update_fields=["spec_json"])


class Migration(migrations.Migration):

    dependencies = [
        ("pools", "0003_image_volumes"),
    ]

    operations = [
        migrations.RunPython(clamp, migrations.RunPython.noop),
    ]
