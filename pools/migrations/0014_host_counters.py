from django.conf import settings
from django.db import migrations, models

AHEAD = 4096
"""Processes of the version before count on in the old columns until they are restarted. Their uids and addresses are
not assigned again as soon as they are free."""


def take_over(apps, schema_editor):
    """Continue after the deployment's counters, where versions before kept them."""
    low, high = settings.BOILERHOUSE_UID_RANGE
    counters = apps.get_model('pools', 'HostCounter').objects
    for row in apps.get_model('core', 'Deployment').objects.all():
        counters.create(name='uid', position=low + (row.next_uid - low + AHEAD) % (high - low))
        counters.create(name='address', position=row.next_address + AHEAD)


def give_back(apps, schema_editor):
    columns = {'uid': 'next_uid', 'address': 'next_address'}
    for counter in apps.get_model('pools', 'HostCounter').objects.all():
        apps.get_model('core', 'Deployment').objects.update(**{columns[counter.name]: counter.position})


class Migration(migrations.Migration):

    dependencies = [
        ('core', '0008_nodes'),
        ('pools', '0013_nodes'),
    ]
    run_before = [
        ('core', '0009_without_counters'),
    ]

    operations = [
        migrations.CreateModel(
            name='HostCounter',
            fields=[
                (
                    'name',
                    models.CharField(
                        choices=[('uid', 'Uid'), ('address', 'Address')],
                        max_length=7,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ('position', models.PositiveIntegerField()),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(
                        condition=models.Q(('name__in', ['uid', 'address'])), name='host_counter_known'
                    )
                ],
            },
        ),
        migrations.RunPython(take_over, give_back),
    ]
