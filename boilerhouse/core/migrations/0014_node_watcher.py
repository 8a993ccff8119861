from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("core", "0013_node_reports"),
    ]

    operations = [
        migrations.AddField(
            model_name="node",
            name="engine_down_since",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="watcher",
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="node",
            name="watched_until",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
