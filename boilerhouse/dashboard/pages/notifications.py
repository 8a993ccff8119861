"""Settings: notifications, their log, and mutes of single causes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from boilerhouse.attention.cause import Kind
from boilerhouse.core.errors import Conflict, FieldError, Invalid
from boilerhouse.core.models import Role
from boilerhouse.dashboard import api_calls, badges, consequences, forms, needs
from boilerhouse.dashboard.access import action, form_page, page, slow
from boilerhouse.dashboard.forms import ApiForm
from boilerhouse.dashboard.listing import Choice, Listing
from boilerhouse.notifications import deliveries, mutes, targets
from boilerhouse.notifications.api.serializers import NotificationInput, render_target
from boilerhouse.notifications.models import Delivery, Target
from boilerhouse.notifications.states import DEFAULT_RULES, RULES, DeliveryState, TargetKind
from boilerhouse.notifications.targets import TargetSettings

TYPES = [
    (TargetKind.WEBHOOK.value, "Webhook, signed"),
    (TargetKind.SLACK.value, "Slack, Mattermost or the like"),
    (TargetKind.EMAIL.value, "E-mail"),
]
LABELS = {
    "name": ("Name", "A label"),
    "type": ("Type", "Cannot be changed later"),
    "url": ("URL", "For webhooks and chats. Stored encrypted; only its host is shown later"),
    "recipients": ("Recipients", "For e-mail: addresses, separated by spaces"),
    "poolIds": ("Pools", "Ids, separated by spaces. Leave empty for all pools"),
}
LISTS = ("recipients", "poolIds")
RULE_WORDS = {
    Kind.STATE_NOT_SAVED: "State is not saved",
    Kind.SAVE_OVERDUE: "Periodic saves are overdue",
    Kind.SINK_DOWN: "A sink is down",
    Kind.POOL_CANNOT_START: "A pool cannot start containers",
    Kind.POOL_UNSTABLE: "Containers fail repeatedly",
    Kind.POOL_EXHAUSTED: "Claims wait for a full pool",
    Kind.POOL_PAUSED: "Claims wait for a paused pool",
    Kind.ROLL_HALTED: "A roll to a new version has stopped",
    Kind.IMAGE_STALE: "A pool runs an older image",
    Kind.CONTAINER_UNHEALTHY: "A claimed container is unhealthy",
    Kind.ENGINE_GONE: "The container engine does not answer",
    Kind.HOST_NOT_READY: "The node cannot isolate containers",
    Kind.DISK_LOW: "The disk is nearly full",
    Kind.NODE_LOST: "A node has no worker",
    Kind.QUEUE_UNSERVED: "A queue is not served",
    Kind.STEP_FAILING: "A step of the controller fails",
    Kind.BACKUP_MISSING: "The last backup is too old",
    Kind.NOTIFICATION_DISABLED: "A notification target is disabled",
}
MUTES = (*needs.MUTES, ("0", "Not muted"))


def _rules(chosen: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Value, label and whether it is chosen, of each rule."""
    return [(kind.value, RULE_WORDS[kind], kind.value in chosen) for kind in RULES]


def _read(form: ApiForm, posted: QueryDict, stored: Target | None = None) -> TargetSettings | None:
    """What was submitted; None if there are errors, which the form then shows."""
    chosen = [name for name in posted.getlist("kinds") if name in RULES]
    more: dict[str, Any] = {"kinds": chosen} if chosen else {}
    if stored is not None:
        more |= {"type": stored.kind, "enabled": "enabled" in posted, "mutedUntil": stored.muted_until}
    form.serializer_context = {"stored": stored} if stored else {}
    data = form.read(posted, **more)
    if data is not None and not chosen:
        form.add(Invalid(FieldError("/kinds", "Choose at least one kind of cause.", "required")))
        data = None
    return None if data is None else NotificationInput.settings_of(data)


def _new_form() -> ApiForm:
    return ApiForm(NotificationInput, list(LABELS), LABELS, {"type": TargetKind.WEBHOOK}, {"type": TYPES}, lists=LISTS)


def _by_api(request: HttpRequest) -> api_calls.Spelled | None:
    """The API call that ends the mute which expires next."""
    row = next(iter(mutes.muted().values()), None)
    return api_calls.spell(request, [api_calls.unmute(mutes.id_of(row.pk))]) if row else None


def _list_page(
    request: HttpRequest, form: ApiForm, chosen: Sequence[str] = DEFAULT_RULES, status: int = 200, **more: Any
) -> HttpResponse:
    rows = [(target, badges.notification(target)) for target in Target.objects.order_by("pk")]
    context = {
        "section": "notifications", "rows": rows, "form": form, "rules": _rules(chosen), "rule_count": len(RULES),
        "form_id": secrets.token_urlsafe(12), "has_mail": bool(settings.EMAIL_HOST),
        "muted": mutes.muted().values(), "muted_by_api": _by_api(request),
        "hold_s": settings.BOILERHOUSE_NOTIFICATION_HOLD_S, **more,
    }  # fmt: skip
    return render(request, "pages/notifications.html", context, status=status)


@page(Role.ADMIN)
def _list(request: HttpRequest) -> HttpResponse:
    return _list_page(request, _new_form())


@action(Role.ADMIN)
def _create(request: HttpRequest) -> HttpResponse:
    form = _new_form()
    settings = _read(form, request.POST)
    if settings is None:
        return _list_page(request, form, request.POST.getlist("kinds"), 422)
    if not forms.is_first(request):
        messages.warning(request, "This form was sent before. No other notification was created.")
        return HttpResponseRedirect(reverse("notifications"), status=303)
    try:
        target, secret = targets.create(id=None, settings=settings)
    except Conflict as error:
        form.add(error)
        return _list_page(request, form, settings.kinds, 422)
    if not secret:
        messages.success(request, f"Notification {target.pk} created. Send a test to try it.")
        return HttpResponseRedirect(reverse("notification", args=[target.pk]), status=303)
    answer = _list_page(request, _new_form(), made=target, secret=secret)
    answer["Cache-Control"] = "no-store"
    return answer


notification_list = form_page(_list, _create)


def _edit_form(target: Target) -> ApiForm:
    labels = {**LABELS, "url": ("New URL", f"Leave empty to keep the one at {target.destination}")}
    is_mail = target.kind == TargetKind.EMAIL
    names = ["name", "recipients" if is_mail else "url", "poolIds"]
    return ApiForm(NotificationInput, names, labels, render_target(target), lists=LISTS)


def _target_page(
    request: HttpRequest, target: Target, form: ApiForm, chosen: Sequence[str], status: int = 200
) -> HttpResponse:  # fmt: skip
    states = [(state.value, str(state.label)) for state in DeliveryState]
    log = Listing(
        request, Delivery.objects.filter(target=target), choices=[Choice("state", "state", "state", states)],
        sorts={"time": "created_at"}, default="-time",
    )  # fmt: skip
    context = {
        "section": "notifications", "target": target, "badge": badges.notification(target), "form": form,
        "rules": _rules(chosen), "list": log, "mutes": MUTES, "badges": badges.DELIVERY,
        "has_mail": bool(settings.EMAIL_HOST), "is_mail": target.kind == TargetKind.EMAIL,
        "hold_s": settings.BOILERHOUSE_NOTIFICATION_HOLD_S,
        "days": settings.BOILERHOUSE_NOTIFICATION_DISABLE_AFTER_S / 86_400,
    }  # fmt: skip
    return render(request, "pages/notification.html", context, status=status)


@page(Role.ADMIN)
def _show(request: HttpRequest, notification_id: str) -> HttpResponse:
    target = targets.find(notification_id)
    return _target_page(request, target, _edit_form(target), target.kinds)


@action(Role.ADMIN)
def _change(request: HttpRequest, notification_id: str) -> HttpResponse:
    target = targets.find(notification_id)
    form = _edit_form(target)
    settings = _read(form, request.POST, target)
    if settings is None:
        return _target_page(request, target, form, request.POST.getlist("kinds"), 422)
    targets.replace(target, settings)
    messages.success(request, "Notification saved." if target.disabled_at is None else "Notification enabled again.")
    return HttpResponseRedirect(reverse("notification", args=[notification_id]), status=303)


notification = form_page(_show, _change)


@slow
@action(Role.ADMIN, acts="A message that was sent cannot be taken back.")
def test(request: HttpRequest, notification_id: str) -> str | HttpResponse:
    """Send a test; the message says how it went."""
    result = deliveries.test(targets.find(notification_id))
    took = f"{result.duration_ms or 0} ms"
    if result.state == DeliveryState.DELIVERED:
        return f"Test delivered in {took}" + (f" (status {result.status_code})." if result.status_code else ".")
    messages.error(request, f"Test not delivered after {took}. {result.detail}")
    return HttpResponseRedirect(reverse("notification", args=[notification_id]), status=303)


@action(Role.ADMIN)
def resend(request: HttpRequest, notification_id: str, delivery_id: UUID) -> str:
    target = targets.find(notification_id)
    deliveries.resend(target, deliveries.find(target.pk, delivery_id))
    return "The message is being sent again, with the same id."


@action(Role.ADMIN)
def mute(request: HttpRequest, notification_id: str) -> str:
    """Mute one target for the chosen time."""
    seconds = _seconds(request)
    targets.mute(targets.find(notification_id), timezone.now() + timedelta(seconds=seconds) if seconds else None)
    return f"{notification_id} is muted." if seconds else f"{notification_id} is no longer muted."


@action(Role.ADMIN, asks=consequences.delete_notification)
def delete(request: HttpRequest, notification_id: str) -> HttpResponse:
    targets.delete(targets.find(notification_id))
    messages.success(request, f"Notification {notification_id} deleted.")
    return HttpResponseRedirect(reverse("notifications"), status=303)


@action(Role.OPERATOR)
def mute_cause(request: HttpRequest) -> str:
    """Mute a single cause for every target."""
    key, seconds = request.POST.get("key", "").replace("\0", "")[:2000], _seconds(request)
    if not key:
        raise Conflict("No cause was named. Nothing was muted.")
    if seconds:
        mutes.mute(key, timezone.now() + timedelta(seconds=seconds))
        return "Muted. No notifications of it are sent until then; it stays on the dashboard."
    mutes.unmute(key)
    return "The cause is no longer muted."


def _seconds(request: HttpRequest) -> int:
    text = request.POST.get("for", "")
    if not text.isascii() or not text.isdigit() or len(text) > 8 or int(text) > mutes.LONGEST.total_seconds():
        raise Conflict("Choose how long. Nothing was changed.")
    return int(text)
