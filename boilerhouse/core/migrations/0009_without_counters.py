from django.db import migrations, models

FIRST_UID = 200_000


class Migration(migrations.Migration):
    """The app that assigns uids and addresses counts them. The columns stay for a release, with defaults: running
    processes of the version before read and write them, and a version that is gone back to does."""

    dependencies = [
        ('core', '0008_nodes'),
    ]

    operations = [
        migrations.AlterField('deployment', 'next_uid', models.PositiveIntegerField(db_default=FIRST_UID)),
        migrations.AlterField('deployment', 'next_address', models.PositiveIntegerField(default=0, db_default=0)),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveField('deployment', 'next_uid'),
                migrations.RemoveField('deployment', 'next_address'),
            ],
        ),
    ]
