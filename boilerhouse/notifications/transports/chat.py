"""Incoming webhooks of Slack, and of chats that take the same."""

from __future__ import annotations

import json

from boilerhouse.notifications.messages import Message, slack_text
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.transports import http


def send(target: Target, message: Message) -> int:
    """Raises Undelivered."""
    return http.post(target.secret["url"], json.dumps({"text": slack_text(message)}).encode(), {})
