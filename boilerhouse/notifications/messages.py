"""What is told: the stored payload of a delivery, and its form for each kind of target.

Titles and texts may contain a tenant's text: ids, file names, errors. It is escaped for where it is shown, and long
text is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from boilerhouse.attention.cause import Kind, Severity
from boilerhouse.core.deployment import deployment_id
from boilerhouse.core.text import one_line, printable
from boilerhouse.notifications.states import Moment

MAX_TITLE, MAX_TEXT, MAX_POOLS = 300, 2000, 50
SUBJECT = 180
"""The maximum length of an e-mail's subject."""
WORDS = {Moment.OPENED: "Needs attention", Moment.RESOLVED: "Resolved", Moment.TEST: "Test"}


@dataclass(frozen=True, slots=True)
class Message:
    """A delivery as a transport sends it."""

    id: UUID
    moment: Moment
    at: datetime
    payload: dict[str, Any]

    @property
    def title(self) -> str:
        return one_line(str(self.payload["title"]))

    @property
    def text(self) -> str:
        return printable(str(self.payload["text"]))


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def payload(
    *, incident_id: UUID | None, key: str, kind: str, severity: str, title: str, text: str, pool_ids: Iterable[str],
    since: datetime, resolved_at: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The JSON that describes a cause, in the API's names."""
    return {
        "id": str(incident_id) if incident_id else None,
        "key": key,
        "kind": kind,
        "severity": severity,
        "title": cut(title, MAX_TITLE),
        "text": cut(text, MAX_TEXT),
        "poolIds": list(pool_ids)[:MAX_POOLS],
        "since": stamp(since),
        "resolvedAt": stamp(resolved_at) if resolved_at else None,
        "deployment": deployment_id(),
    }


def test_payload(now: datetime) -> dict[str, Any]:
    """A cause that does not exist."""
    return payload(
        incident_id=None, key="test", kind=Kind.SINK_DOWN, severity=Severity.WARNING,
        title="This is a test", text="Boilerhouse can reach this target. Nothing is wrong.", pool_ids=(), since=now,
    )  # fmt: skip


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def webhook_body(message: Message) -> dict[str, Any]:
    """As Standard Webhooks recommends: type, timestamp, data."""
    kind = "boilerhouse.test" if message.moment == Moment.TEST else f"boilerhouse.cause.{message.moment}"
    return {"type": kind, "timestamp": stamp(message.at), "data": message.payload}


def slack_text(message: Message) -> str:
    """Free text is in a code block, where it can neither mention anybody nor become a link or an image.

    Slack needs ``&``, ``<`` and ``>`` escaped everywhere.
    """
    sign = {Moment.RESOLVED: ":white_check_mark:", Moment.TEST: ":information_source:"}.get(
        message.moment, ":red_circle:" if message.payload["severity"] == Severity.ERROR else ":warning:"
    )
    block = f"{message.title}\n{message.text}".replace("`", "'")  # a backtick could end the block
    block = block.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u2060")
    return f"{sign} *{WORDS[message.moment]}* · Boilerhouse {message.payload['deployment']}\n```\n{block}\n```"


def email_subject(message: Message) -> str:
    """One line: a newline would begin another header."""
    return cut(f"[Boilerhouse] {WORDS[message.moment]}: {message.title}", SUBJECT)


def email_text(message: Message) -> str:
    """Plain text, so that nothing in it is interpreted."""
    about = message.payload
    lines = [
        message.title, "", message.text, "",
        f"Kind: {about['kind']} ({about['severity']})",
        f"Pools: {', '.join(about['poolIds']) or 'the deployment'}",
        f"Since: {about['since']}",
        *([f"Resolved: {about['resolvedAt']}"] if about["resolvedAt"] else []),
        f"Deployment: {about['deployment']}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
