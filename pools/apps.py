from django.apps import AppConfig


class PoolsConfig(AppConfig):
    name = "pools"
    verbose_name = "Pools and containers"

    def ready(self) -> None:
        from boilerhouse.core import deployment
        from pools import checks  # noqa: F401  # they register themselves
        from pools.models import Container

        deployment.nodes_of_rows.append(lambda: set(Container.objects.values_list("node_id", flat=True).distinct()))
