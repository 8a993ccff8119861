from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"

    def ready(self) -> None:
        from syncing.services import to_be_saved
        from tenants.releases import are_to_save

        to_be_saved.append(are_to_save)
