from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('core', '0011_routine_events'),
    ]

    operations = [
        migrations.CreateModel(
            name='TenantUsage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('tenant_id', models.CharField(max_length=128)),
                ('period', models.CharField(choices=[('day', 'Day'), ('month', 'Month')], max_length=5)),
                ('start', models.DateField()),
                ('held_ms', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('cpu_ns', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('memory_byte_s', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('sent_bytes', models.PositiveBigIntegerField(db_default=0, default=0)),
                ('received_bytes', models.PositiveBigIntegerField(db_default=0, default=0)),
            ],
            options={
                'indexes': [models.Index(fields=['period', 'start', 'held_ms', 'id'], name='usage_by_hours')],
                'constraints': [models.UniqueConstraint(fields=('tenant_id', 'period', 'start'), name='one_usage_per_tenant_and_period')],
            },
        ),
    ]
