from django.db import migrations, models


class Migration(migrations.Migration):
    """Apart from the rows that it covers: PostgreSQL refuses an index on a table with pending changes."""

    dependencies = [
        ('tenants', '0015_tenant_usage'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='assignment',
            index=models.Index(condition=models.Q(('assigned_at__isnull', False), ('is_counted', False)), fields=['id'], name='assignment_uncounted'),
        ),
        migrations.AddIndex(
            model_name='tenant',
            index=models.Index(fields=['seen_at', 'id'], name='tenant_seen'),
        ),
        migrations.AddIndex(
            model_name='tenant',
            index=models.Index(fields=['saved_bytes', 'id'], name='tenant_size'),
        ),
    ]
