from pathlib import Path

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

NAMED_BY = ('Container', 'HostLease', 'ImagePull', 'NetworkReport', 'ResolvedName')


def make_rows(apps, schema_editor):
    """Of every node that a row names, and of this one: a process of the version before may be about to name it."""
    node = apps.get_model('core', 'Node')
    named = {
        one
        for model in NAMED_BY
        for one in apps.get_model('pools', model).objects.values_list('node', flat=True).distinct()
        if one
    }
    path = Path(settings.BOILERHOUSE_DATA_DIR) / 'node-id'
    if path.is_file():
        named.add(path.read_text().strip())
    # An id is the machine's name and six random digits.
    node.objects.bulk_create([node(pk=one, name=one.rpartition('-')[0] or one) for one in sorted(named)])
    apps.get_model('pools', 'HostLease').objects.filter(node='').update(node=None)


def note_unknown(apps, schema_editor):
    apps.get_model('pools', 'HostLease').objects.filter(node=None).update(node='')


def reference(related, **options):
    own = {'db_column': 'node', 'db_index': False, 'on_delete': django.db.models.deletion.CASCADE, 'to': 'core.node'}
    return models.ForeignKey(**own | {'related_name': related} | options)


class Migration(migrations.Migration):

    dependencies = [
        ('core', '0008_nodes'),
        ('pools', '0012_lease_node'),
    ]

    operations = [
        migrations.AlterField(
            model_name='hostlease',
            name='node',
            field=models.CharField(max_length=64, null=True),
        ),
        migrations.RunPython(make_rows, note_unknown),
        migrations.AlterField(
            model_name='container',
            name='node',
            field=reference('containers', on_delete=django.db.models.deletion.PROTECT),
        ),
        migrations.AlterField(
            model_name='hostlease',
            name='node',
            field=reference('leases', on_delete=django.db.models.deletion.PROTECT, null=True),
        ),
        migrations.AlterField(
            model_name='imagepull',
            name='node',
            field=reference('image_pulls'),
        ),
        migrations.AlterField(
            model_name='networkreport',
            name='node',
            field=models.OneToOneField(
                db_column='node',
                on_delete=django.db.models.deletion.CASCADE,
                primary_key=True,
                related_name='network_report',
                serialize=False,
                to='core.node',
            ),
        ),
        migrations.AlterField(
            model_name='resolvedname',
            name='node',
            field=reference('resolved_names'),
        ),
    ]
