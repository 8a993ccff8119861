from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0007_disk_reason")]

    operations = [
        migrations.AddField(
            model_name="assignment",
            name="last_turn_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
