"""Endpoints of notifications."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import paginate
from boilerhouse.api.schema import CURSOR, LIMIT, operation, page_of, query
from boilerhouse.core.ids import check_same_id
from boilerhouse.notifications import deliveries, targets
from boilerhouse.notifications.api.serializers import (
    NewNotificationOutput,
    NotificationDeliveryOutput,
    NotificationInput,
    NotificationOutput,
    render_delivery,
    render_target,
)
from boilerhouse.notifications.models import Delivery, Target

VOLATILE = frozenset({"state", "failingSince", "lastDeliveredAt"})


class NotificationListView(ApiView):
    admin_only = True
    viewer_may_read = False
    volatile = VOLATILE

    @operation(
        operation_id="listNotifications",
        summary="List notifications",
        parameters=[LIMIT, CURSOR],
        responses=page_of("NotificationPage", NotificationOutput),
    )
    def get(self, request: Any) -> Response:
        return paginate(request, Target.objects.all(), render_target, {})

    @operation(
        operation_id="createNotification",
        problems={409: "id_taken"},
        summary="Create a notification",
        description="Its target is told of each present and later cause of its kinds once, and again when the cause is"
        " gone. The URL may not lead to an internal address unless the deployment allows it. `secret` is"
        " shown once.",
        request=NotificationInput,
        responses={201: NewNotificationOutput},
    )
    def post(self, request: Any) -> Response:
        body = self.read(NotificationInput)
        target, secret = targets.create(id=body.validated_data.get("id"), settings=body.settings())
        body_of_target = render_target(target)
        return Response({**body_of_target, "secret": secret or None}, 201, headers={"ETag": self.etag(body_of_target)})


class NotificationView(ApiView):
    admin_only = True
    viewer_may_read = False
    volatile = VOLATILE

    @operation(operation_id="getNotification", summary="Show a notification", responses=NotificationOutput)
    def get(self, request: Any, notification_id: str) -> Response:
        return self.with_etag(render_target(targets.find(notification_id)))

    @operation(
        operation_id="replaceNotification",
        summary="Change a notification",
        description="Enables a disabled one. `url` and `secret` stay as stored if they are left out. `type` cannot"
        " change. To mute it, set `mutedUntil`.",
        request=NotificationInput,
        responses=NotificationOutput,
    )
    def put(self, request: Any, notification_id: str) -> Response:
        target = targets.find(notification_id)
        self.check_match(render_target(target))
        body = self.read(NotificationInput, stored=target)
        check_same_id(dict(body.validated_data), notification_id)
        targets.replace(target, body.settings(), check=lambda locked: self.check_match(render_target(locked)))
        return self.with_etag(render_target(targets.find(notification_id)))

    @operation(
        operation_id="deleteNotification",
        summary="Delete a notification and its log",
        responses={204: None},
    )
    def delete(self, request: Any, notification_id: str) -> Response:
        targets.delete(targets.find(notification_id))
        return Response(status=204)


class NotificationTestView(ApiView):
    admin_only = True
    viewer_may_read = False
    lane = "slow"

    @operation(
        operation_id="testNotification",
        summary="Send a test",
        description="Sends one message now, whatever the rules say, and answers with its result. It is not retried.",
        acts="A message that was sent cannot be taken back.",
        responses=NotificationDeliveryOutput,
    )
    def post(self, request: Any, notification_id: str) -> Response:
        return Response(render_delivery(deliveries.test(targets.find(notification_id))))


class DeliveryListView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="listNotificationDeliveries",
        summary="List deliveries",
        description="What was sent, with the status of the last answer. Content of answers is not kept.",
        parameters=[query("state"), LIMIT, CURSOR],
        responses=page_of("NotificationDeliveryPage", NotificationDeliveryOutput),
    )
    def get(self, request: Any, notification_id: str) -> Response:
        rows = Delivery.objects.filter(target=targets.find(notification_id))
        return paginate(request, rows, render_delivery, {"state": "state"})


class ResendView(ApiView):
    admin_only = True
    viewer_may_read = False

    @operation(
        operation_id="resendNotificationDelivery",
        problems={409: "delivery_pending notification_off"},
        summary="Send a delivery again",
        description="With the same id, so that a receiver can tell it from a new message.",
        responses={202: NotificationDeliveryOutput},
    )
    def post(self, request: Any, notification_id: str, delivery_id: str) -> Response:
        target = targets.find(notification_id)
        delivery = deliveries.resend(target, deliveries.find(target.pk, delivery_id))
        return Response(render_delivery(delivery), 202)
