"""Create an API key and print only the key on stdout."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from boilerhouse.core.api_keys import create_key
from boilerhouse.core.bounds import TEN_YEARS_S
from boilerhouse.core.ids import TENANT_ID
from boilerhouse.core.models import Role
from boilerhouse.process import commands


class Command(commands.Command):
    help = "Create an API key and print it, once. Only its hash is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--role", required=True, choices=Role.values)
        parser.add_argument(
            "--tenant", action="append", default=[], help="a tenant that a key of role tenant may act for; repeatable"
        )
        parser.add_argument("--expires-days", type=commands.whole(1, TEN_YEARS_S // 86_400))
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        role, tenants, days = Role(options["role"]), options["tenant"], options["expires_days"]
        if (role == Role.TENANT) != bool(tenants):
            raise CommandError("--role tenant needs --tenant, and no other role takes it.", returncode=commands.USAGE)
        if wrong := [tenant for tenant in tenants if not TENANT_ID.match(tenant)]:
            raise CommandError(f"Invalid tenant id: {wrong[0]}", returncode=commands.USAGE)
        expires = timezone.now() + timedelta(days=days) if days else None
        row, key = create_key(name=options["name"], role=role, tenant_ids=tenants, expires_at=expires)
        self.result(options, {"id": row.pk, "key": key, "name": row.name, "role": row.role}, key)
