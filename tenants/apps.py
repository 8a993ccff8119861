from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Tenants"

    def ready(self) -> None:
        from django.db.models.signals import pre_delete

        from syncing.services import to_be_saved
        from tenants.releases import are_to_save
        from tenants.usage import count_pool

        to_be_saved.append(are_to_save)
        pre_delete.connect(count_pool, sender="pools.Pool")
