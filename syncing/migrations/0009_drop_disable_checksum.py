from django.db import migrations

GONE = "--s3-disable-checksum"


def drop(apps, _schema_editor):
    """A spec that says it would lose changes that leave a file's size as it was."""
    specs = apps.get_model("syncing", "SyncSpec").objects
    for spec in specs.filter(sink__has_key="rcloneFlags"):
        flags = [flag for flag in spec.sink["rcloneFlags"] or [] if flag.partition("=")[0] != GONE]
        if flags != spec.sink["rcloneFlags"]:
            specs.filter(pk=spec.pk).update(sink={**spec.sink, "rcloneFlags": flags})


class Migration(migrations.Migration):

    dependencies = [
        ('syncing', '0008_quiesce'),
    ]

    operations = [migrations.RunPython(drop, migrations.RunPython.noop)]
