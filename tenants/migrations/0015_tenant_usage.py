import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models
from django.db.models import F, Max, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest


def fill(apps, schema_editor):
    """Since when the containers of earlier claims are gone, and what lists of tenants sort by."""
    Assignment, Tenant = apps.get_model('tenants', 'Assignment'), apps.get_model('tenants', 'Tenant')
    SavedState = apps.get_model('syncing', 'SavedState')
    Assignment.objects.filter(state='ended').update(held_until=F('ended_at'))
    Assignment.objects.filter(state='release_failed').update(held_until=F('state_changed_at'))
    active = Coalesce('last_activity_at', 'assigned_at', 'created_at')
    claims = Assignment.objects.filter(tenant=OuterRef('pk')).values('tenant')
    seen = claims.annotate(at=Max(Greatest(active, Coalesce('held_until', active)))).order_by().values('at')
    saves = SavedState.objects.filter(tenant_id=OuterRef('pk'), forgotten_at=None).values('tenant_id').order_by()
    Tenant.objects.update(
        seen_at=Coalesce(Subquery(seen), F('created_at')),
        saved_at=Subquery(saves.annotate(at=Max('saved_at')).values('at')),
        saved_bytes=Coalesce(Subquery(saves.annotate(size=Sum('bytes')).values('size')), 0),
    )


class Migration(migrations.Migration):

    dependencies = [
        ('syncing', '0012_asked_by'),
        ('tenants', '0014_asked_by'),
    ]

    operations = [
        migrations.AddField(
            model_name='assignment',
            name='counted_cpu_ns',
            field=models.PositiveBigIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='assignment',
            name='counted_to',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='assignment',
            name='held_until',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='assignment',
            name='is_counted',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='tenant',
            name='saved_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='tenant',
            name='saved_bytes',
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='tenant',
            name='seen_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
