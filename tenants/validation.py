"""Validation of client input: a tenant's id, its config by the workload's schema, names and sizes of secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boilerhouse.core.errors import FieldError, Invalid
from boilerhouse.core.ids import TENANT_ID
from boilerhouse.process.subprocess_pool import AllowanceSpent, LimitExceeded, NoFreeProcess
from pools import schemas
from pools.egress import Egress
from pools.models import Pool
from pools.spec import WorkloadSpec

SECRET_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
RESERVED_SECRETS = frozenset({"config.json", "claim.json"})
MAX_SECRET_BYTES = 64 * 1024
NOT_CHECKED = frozenset({"too_much", NoFreeProcess.code, AllowanceSpent.code})
"""Error codes that are not a verdict on the config."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a client asks for."""

    tenant_id: str
    pool_id: str
    config: dict[str, Any] | None = None
    secrets: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    network: dict[str, Any] | None = None
    """``{egress}``: the policy that narrows the pool's."""
    wait: bool = True
    timeout_ms: int = 30_000
    ttl_ms: int | None = None
    """How long after its beginning the claim ends; None: never."""
    end_discards: bool = False
    """Whether the state is discarded then."""
    tenant_key: str = ""
    """Id of the key of role ``tenant`` that sends it; empty for all other keys."""

    @property
    def by_tenant(self) -> bool:
        return bool(self.tenant_key)

    @property
    def egress(self) -> dict[str, Any] | None:
        return (self.network or {}).get("egress")


def check_tenant_id(tenant_id: str, pointer: str = "") -> str:
    """Raise Invalid for text that cannot be a tenant's id; ``pointer`` is its place in a body."""
    if not TENANT_ID.match(tenant_id):
        detail = "Use 1 to 128 of A-Z a-z 0-9 . _ @ : -, starting with a letter or digit."
        raise Invalid(FieldError(pointer, detail, "tenant_id"), detail=detail)
    return tenant_id


def check_claim(claim: Claim, spec: WorkloadSpec) -> None:
    """Raise Invalid with a pointer for each invalid part of config or secrets; NoFreeProcess, AllowanceSpent."""
    wrong: list[FieldError] = []
    has_volume = spec.volume("secrets") is not None
    if claim.config is not None and not has_volume:
        wrong.append(FieldError("/config", "The workload has no secrets volume to store it in.", "no_secrets_volume"))
    if claim.secrets and not has_volume:
        wrong.append(
            FieldError("/secrets", "The workload has no secrets volume to store them in.", "no_secrets_volume")
        )
    for name, value in (claim.secrets or {}).items():
        pointer = "/secrets/" + name.replace("~", "~0").replace("/", "~1")
        if not SECRET_NAME.match(name) or name in RESERVED_SECRETS:
            wrong.append(FieldError(pointer, "This name is not allowed for a secret.", "secret_name"))
        elif len(value.encode("utf-8", "surrogatepass")) > MAX_SECRET_BYTES:
            wrong.append(FieldError(pointer, f"A secret may have at most {MAX_SECRET_BYTES} bytes.", "too_large"))
    [errors] = config_errors([claim.config or {}], spec, claim.tenant_id)
    wrong += [FieldError(f"/config{error.pointer}", error.detail, error.code) for error in errors]
    if wrong:
        raise Invalid(*wrong)


def check_egress(
    policy: Egress, pool: Pool, spec: WorkloadSpec, pointer: str, bound: dict[str, Any] | None = None
) -> None:
    """Raise Invalid if a tenant's policy is not within the pool's, or could not be enforced.

    ``bound`` is an additional policy that it must stay within.
    """
    if not spec.takes_policies:
        detail = (
            f"The workload's containers are on the network {spec.security.network_mode}, where no policy is enforced."
        )
        raise Invalid(FieldError(pointer, detail, "not_enforced"))
    wrong = policy.wider_than(pool.policy)
    if not wrong and bound is not None:
        wrong = policy.wider_than(Egress.from_json(bound), "The policy set for this tenant")
    if wrong:
        raise Invalid(*(FieldError(pointer + problem.pointer, problem.detail, problem.code) for problem in wrong))


def config_errors(configs: Sequence[dict[str, Any]], spec: WorkloadSpec, asker: str) -> list[list[FieldError]]:
    """The errors of each config by the workload's schema, with pointers into it.

    They are checked as one question of ``asker``. Raises AllowanceSpent if its last one took long, NoFreeProcess.
    """
    if spec.config_schema is None:
        return [[] for _ in configs]
    try:
        return schemas.errors(spec.config_schema, configs, asker)
    except schemas.Unusable as error:
        wrong = FieldError("", f"The workload's configSchema cannot be applied to it: {error}"[:300], "schema")
    except LimitExceeded:
        detail = "Checking it against the workload's configSchema took more than one second or 512 MiB and was stopped."
        wrong = FieldError("", detail, "too_much")
    return [[wrong] for _ in configs]


def shown_errors(configs: Sequence[dict[str, Any]], spec: WorkloadSpec, page: str) -> list[list[FieldError]]:
    """The same for a page, which shows an error if they cannot be checked now."""
    try:
        return config_errors(configs, spec, f"page {page}")
    except (NoFreeProcess, AllowanceSpent) as error:
        return [[FieldError("", error.detail, error.code)] for _ in configs]
