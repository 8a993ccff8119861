from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "boilerhouse.core"
    label = "core"

    def ready(self) -> None:
        from boilerhouse.core import checks  # noqa: F401  registers them
