"""Print a link that logs a staff user in once."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from boilerhouse.operations.login_tokens import login_tokens
from boilerhouse.process import commands


class Command(commands.Command):
    help = "Print a path that logs a staff user in once. It is valid for a few days or until the next login."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", default="admin")
        parser.add_argument("--create", action="store_true", help="create a superuser of that name if there is none")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        model, name = get_user_model(), options["user"]
        user = model.objects.filter(username=name).first()
        if user is None and options["create"]:
            user = model.objects.create_superuser(username=name)
            user.set_unusable_password()
            user.save()
        if user is None or not user.is_staff:
            raise CommandError(f"No staff user {name}.", returncode=commands.NOT_FOUND)
        uid = urlsafe_base64_encode(force_bytes(user.pk))
        path = reverse("one-time-login", args=[uid, login_tokens.make_token(user)])
        self.result(options, {"path": path, "user": name}, path)
