from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "boilerhouse.core"
    label = "core"
    verbose_name = "Deployment"

    def ready(self) -> None:
        from boilerhouse.core import checks  # noqa: F401  registers them
