"""Base classes of the admin: rows are read-only, and actions call the services and report the result of each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import capfirst

from boilerhouse.core import context
from boilerhouse.core.admin_quantities import in_words
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Role
from boilerhouse.core.roles import reaches, role_of

AT_ONCE = 200
Action = Callable[["ReadOnlyAdmin", HttpRequest, QuerySet[Any]], HttpResponse | None]


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    """Rows written by services: the admin shows them but does not change them."""

    page = ""
    """The URL name of the page that shows one row, linked as "View on site"."""
    page_argument = "pk"
    list_per_page = 50
    show_full_result_count = False

    def get_list_display(self, request: HttpRequest) -> Any:
        return in_words(super().get_list_display(request))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return in_words(super().get_fields(request, obj))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        named = in_words(field.name for field in self.opts.fields)
        return [*super().get_readonly_fields(request, obj), *filter(callable, named)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = capfirst(self.model._meta.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def view_on_site(self, obj: Any) -> str | None:
        argument = getattr(obj, self.page_argument)
        return reverse(self.page, args=[argument]) if self.page and argument else None


def service_action(
    name: str, description: str, act: Callable[[Any], object], *, least: Role = Role.OPERATOR, confirm: str = ""
) -> Action:
    """An action that calls ``act`` for each row. With ``confirm``, a page lists the rows and asks first."""

    def run(options: ReadOnlyAdmin, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        if not reaches(role_of(request.user), least):
            options.message_user(request, f"Nothing was done: you need the role {least.value}.", messages.ERROR)
            return None
        picked = list(rows[: AT_ONCE + 1])
        if len(picked) > AT_ONCE:
            options.message_user(request, f"Nothing was done: select at most {AT_ONCE}.", messages.ERROR)
            return None
        if confirm and request.POST.get("confirmed") != "yes":
            question = {
                **options.admin_site.each_context(request), "title": f"{description}?", "effect": confirm,
                "rows": picked, "action": name, "opts": options.model._meta, "checkbox": ACTION_CHECKBOX_NAME,
            }  # fmt: skip
            return TemplateResponse(request, "admin/confirm_action.html", question)
        count = 0
        with context.acting(f"user {request.user.get_username()}", getattr(request, "request_id", "")):
            for row in picked:
                try:
                    act(row)
                    count += 1
                except BoilerhouseError as error:
                    options.message_user(request, f"{row}: {error.detail}", messages.ERROR)
        options.message_user(request, f"{description}: {count} of {len(picked)}.", messages.SUCCESS)
        return None

    run.__name__ = name
    run.short_description = description  # type: ignore[attr-defined]
    run.allowed_permissions = ("view",)  # type: ignore[attr-defined]
    return run
