from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("tenants", "0016_usage_indexes")]

    operations = [
        migrations.AddField(model_name="assignment", name="ends_at", field=models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            model_name="assignment", name="end_discards", field=models.BooleanField(db_default=False, default=False)
        ),
        migrations.AlterField(
            model_name="assignment",
            name="reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("requested", "Requested"),
                    ("idle", "Idle"),
                    ("container_died", "Container Died"),
                    ("unhealthy", "Unhealthy"),
                    ("pool_deleted", "Pool Deleted"),
                    ("disk", "Disk"),
                    ("expired", "Expired"),
                ],
                default="",
                max_length=16,
            ),
        ),
        migrations.AddIndex(
            model_name="assignment",
            index=models.Index(
                condition=Q(ends_at__isnull=False, state="assigned"), fields=["ends_at"], name="assignment_ends"
            ),
        ),
    ]
