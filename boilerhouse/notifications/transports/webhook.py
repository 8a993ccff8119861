"""Webhooks, signed as Standard Webhooks says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from boilerhouse.notifications import signing
from boilerhouse.notifications.messages import Message, webhook_body
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.transports import http


def send(target: Target, message: Message) -> int:
    """Signed with each secret that is valid now. Raises Undelivered."""
    text = json.dumps(webhook_body(message), ensure_ascii=False, separators=(",", ":"))
    name, now = f"msg_{message.id.hex}", datetime.now(UTC)
    signatures = [Webhook(secret).sign(name, now, text) for secret in signing.valid(target, now)]
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    return http.post(target.secret["url"], text.encode(), headers)
