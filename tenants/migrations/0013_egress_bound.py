from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0012_directory_node")]

    operations = [
        migrations.AddField(
            model_name="assignment", name="egress_bound", field=models.JSONField(blank=True, null=True)
        ),
    ]
