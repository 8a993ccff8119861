"""The admin page of users, which are changed on the pages of settings."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.models import User

from boilerhouse.core.admin_actions import ReadOnlyAdmin

admin.site.unregister(User)


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    """Settings keeps an admin in the deployment and records each change; Django's own form does neither."""

    page = "user"
    list_display = ("username", "is_active", "is_superuser", "last_login", "date_joined")
    list_filter = ("is_active", "groups")
    search_fields = ("username",)
    exclude = ("password", "user_permissions", "first_name", "last_name", "email")
