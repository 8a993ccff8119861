from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("syncing", "0010_places")]

    operations = [
        migrations.AddField(
            model_name="savedstate",
            name="marker_bytes",
            field=models.PositiveBigIntegerField(default=0),
        ),
    ]
