from django.db import migrations, models
from django.db.models import OuterRef, Subquery, Value
from django.db.models.functions import Coalesce


def note_nodes(apps, schema_editor):
    """Of leases whose container has a row."""
    containers = apps.get_model('pools', 'Container').objects.filter(pk=OuterRef('container_id'))
    apps.get_model('pools', 'HostLease').objects.update(
        node=Coalesce(Subquery(containers.values('node')[:1]), Value(''))
    )


class Migration(migrations.Migration):

    dependencies = [
        ('pools', '0011_resolved_names'),
    ]

    operations = [
        migrations.AddField(
            model_name='hostlease',
            name='node',
            field=models.CharField(blank=True, db_default='', default='', max_length=64),
        ),
        migrations.RunPython(note_nodes, migrations.RunPython.noop),
    ]
