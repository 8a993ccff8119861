"""E-mail through the deployment's SMTP server, by Django's backend with a deadline for all of it."""

from __future__ import annotations

import smtplib
import socket
import ssl
from functools import cached_property
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from boilerhouse.notifications.errors import Undelivered
from boilerhouse.notifications.messages import Message, email_subject, email_text
from boilerhouse.notifications.models import Target
from syncing.errors import SinkStumbled
from syncing.sinks import deadlines, network_settings

SEND_S = 20.0
"""A mail server may compare a sender with lists before it answers."""


class _Bounded(smtplib.SMTP):
    """Its connection is closed at the deadline."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        deadlines.use(connection)
        return connection


class _BoundedTls(smtplib.SMTP_SSL, _Bounded):
    pass


class Backend(EmailBackend):
    """Django's SMTP backend with bounded connections and the deployment's certificates."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _BoundedTls if self.use_ssl else _Bounded

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=network_settings.ca_bundle())


def is_configured() -> bool:
    return bool(settings.EMAIL_HOST)


def send(target: Target, message: Message) -> None:
    """Raises Undelivered."""
    if not is_configured():
        raise Undelivered("No mail server is set. Set BOILERHOUSE_SMTP_HOST and restart.")
    headers = {
        "Message-ID": f"<{message.id}@{message.payload['deployment']}.boilerhouse>",
        "Auto-Submitted": "auto-generated",
    }
    connection: Any = Backend(timeout=SEND_S)
    mail = EmailMessage(
        email_subject(message), email_text(message), settings.DEFAULT_FROM_EMAIL, target.recipients,
        headers=headers, connection=connection,
    )  # fmt: skip
    try:
        with deadlines.within(SEND_S):
            mail.send()
    except SinkStumbled as error:
        raise Undelivered(f"The mail server has not taken it within {SEND_S:g} s.") from error
    except smtplib.SMTPResponseException as error:
        raise Undelivered(f"The mail server answered {error.smtp_code}.", status=error.smtp_code) from error
    except smtplib.SMTPRecipientsRefused as error:
        code = next((code for code, _ in error.recipients.values()), None)
        raise Undelivered(f"The mail server refused all recipients ({code}).", status=code) from error
    except (OSError, ValueError) as error:  # of smtplib, sockets and TLS; ValueError: a header that cannot be sent
        raise Undelivered(f"The mail server cannot be used ({type(error).__name__}).") from error
