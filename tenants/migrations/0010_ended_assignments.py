from django.db import migrations, models


def clear(apps, schema_editor):
    """What ended assignments were sent is of no use any more, and may be a megabyte each."""
    ended = apps.get_model("tenants", "Assignment").objects.filter(state="ended")
    ended.exclude(config=None, metadata=None).update(config=None, metadata=None, secrets=None)


class Migration(migrations.Migration):
    dependencies = [("tenants", "0009_network_policies")]

    operations = [
        migrations.RunPython(clear, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="assignment",
            index=models.Index(fields=["ended_at"], name="assignment_ended"),
        ),
    ]
