"""Settings that admins can change at run time."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.api.settings_fields import SettingsInput, render_settings
from boilerhouse.core import deployment_settings


class SettingsView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(operation_id="getSettings", summary="Show the settings in force", responses=SettingsInput)
    def get(self, request: Any) -> Response:
        return self.with_etag(render_settings(deployment_settings.current()))

    @operation(
        operation_id="replaceSettings",
        summary="Change the settings",
        description="The process environment sets the upper limits: a value that exceeds one is a"
        " 422 with the variable's name. Running containers keep what they have.",
        request=SettingsInput,
        responses=SettingsInput,
    )
    def put(self, request: Any) -> Response:
        self.check_match(render_settings(deployment_settings.current()))
        new = self.read(SettingsInput).to_settings()
        current = deployment_settings.replace(new, lambda locked: self.check_match(render_settings(locked)))
        return self.with_etag(render_settings(current))
