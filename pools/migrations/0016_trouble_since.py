from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("pools", "0015_asked_by"),
    ]

    operations = [
        migrations.AddField(
            model_name="pool",
            name="trouble_since",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
