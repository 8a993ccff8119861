"""A pool's placement in the API."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from boilerhouse.api.serializers import ApiSerializer
from pools.api.node_fields import LabelsField
from pools.models import Pool
from pools.placement import Rules, Strategy


class PlacementField(ApiSerializer):
    """Which nodes new containers may be on. A change leaves those that are there."""

    strategy = serializers.ChoiceField(
        [strategy.value for strategy in Strategy], default=Strategy.SPREAD.value,
        help_text="spread: the node with the least promised, in relation to what it has. binpack: the most.",
    )  # fmt: skip
    node_selector = LabelsField(
        source="selector", default=dict, help_text="Labels that a node must have, with these values."
    )
    max_per_node = serializers.IntegerField(
        default=None, allow_null=True, min_value=1, max_value=10_000,
        help_text="The largest number of the pool's containers on one node; null: any.",
    )  # fmt: skip

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        return dict(super().to_internal_value(data))


def render_placement(pool: Pool) -> Rules | None:
    """What ``PlacementField`` shows of the pool."""
    return None if pool.placement is None else Rules.from_json(pool.placement)
