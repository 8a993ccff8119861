"""How each kind of target is reached. Sending takes at most ``SEND_S`` seconds, whatever the other side does."""

from __future__ import annotations

from collections.abc import Callable

from boilerhouse.notifications.messages import Message
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.states import TargetKind
from boilerhouse.notifications.transports import chat, mail, webhook

Send = Callable[[Target, Message], int | None]
"""Returns the status code of the answer, if there is one. Raises Undelivered."""
SENDERS: dict[TargetKind, Send] = {
    TargetKind.WEBHOOK: webhook.send,
    TargetKind.SLACK: chat.send,
    TargetKind.EMAIL: mail.send,
}


def send(target: Target, message: Message) -> int | None:
    """Returns the status code of the target's answer. Raises Undelivered."""
    return SENDERS[TargetKind(target.kind)](target, message)
