from typing import Any

from django.db import migrations, models

from tenants.gateway.hosts import new_label


def label_holders(apps: Any, _: Any) -> None:
    """Tenants that hold something get their label now, all others with their next claim."""
    tenants, assignments = apps.get_model("tenants", "Tenant"), apps.get_model("tenants", "Assignment")
    for pk in set(assignments.objects.exclude(state="ended").values_list("tenant_id", flat=True)):
        tenants.objects.filter(pk=pk).update(host_label=new_label())


class Migration(migrations.Migration):
    dependencies = [("tenants", "0019_node_drain")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="host_label",
            field=models.CharField(blank=True, max_length=20, null=True, unique=True),
        ),
        migrations.RunPython(label_holders, migrations.RunPython.noop),
    ]
