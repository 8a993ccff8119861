from django.apps import AppConfig


class SyncingConfig(AppConfig):
    name = "syncing"
    verbose_name = "Saved state"

    def ready(self) -> None:
        from pools.services import spec_checks
        from syncing.services import check_workload

        spec_checks.append(check_workload)
