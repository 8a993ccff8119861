import boilerhouse.core.states
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('core', '0007_kept_bytes_of_all'),
    ]

    operations = [
        migrations.CreateModel(
            name='Node',
            fields=[
                ('id', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=64)),
                (
                    'state',
                    models.CharField(
                        choices=[('active', 'Active'), ('silent', 'Silent')],
                        default=boilerhouse.core.states.NodeState['ACTIVE'],
                        max_length=6,
                    ),
                ),
                ('heartbeat_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'constraints': [
                    models.CheckConstraint(
                        condition=models.Q(('state__in', ['active', 'silent'])), name='node_state_known'
                    )
                ],
            },
        ),
        # Older versions, which run on meanwhile, go on writing the column "node" as it is.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RenameField(model_name='process', old_name='node', new_name='pid_space'),
                migrations.AlterField(
                    model_name='process',
                    name='pid_space',
                    field=models.CharField(db_column='node', max_length=64),
                ),
            ],
        ),
        migrations.AddField(
            model_name='process',
            name='node',
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name='processes',
                to='core.node',
            ),
        ),
    ]
