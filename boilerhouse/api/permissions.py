"""What each role may do. A view overrides this with ``admin_only``, ``viewer_may_read``, ``tenant_filtered`` (a tenant
key gets only its own objects), ``tenant_scoped`` or ``is_public``."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.permissions import SAFE_METHODS, BasePermission

from boilerhouse.core.models import Role


class RolePermission(BasePermission):
    message = "The role of this key does not allow this operation."

    def has_permission(self, request: Any, view: Any) -> bool:
        if getattr(view, "is_public", False):
            return True
        key = request.auth
        if key is None:
            raise NotAuthenticated("No API key. Send Authorization: Bearer bh_…")
        match key.role:
            case Role.ADMIN:
                return True
            case Role.OPERATOR:
                return not getattr(view, "admin_only", False)
            case Role.VIEWER:
                return request.method in SAFE_METHODS and getattr(view, "viewer_may_read", True)
            case Role.TENANT:
                if getattr(view, "tenant_filtered", False):
                    return request.method in SAFE_METHODS
                tenant_id = view.kwargs.get("tenant_id")
                if tenant_id is None:
                    return False
                if tenant_id not in key.tenant_ids:
                    raise NotFound
                return getattr(view, "tenant_scoped", True)
        return False
