"""The first steps of a new deployment, from nothing to the first claim, each done or with what does it."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from boilerhouse.core.models import ApiKey, Role
from boilerhouse.dashboard import api_calls, config_fields
from boilerhouse.dashboard.access import may
from boilerhouse.operations import embedded_s3
from pools.models import Pool, Workload
from syncing.models import SyncSpec
from tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class StepAction:
    """A link, or with ``is_post`` a button, that does a step."""

    verb: str
    url: str
    icon: str = "i-plus"
    is_post: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    text: str
    is_done: bool
    is_next: bool
    """Whether it is the first that is not done."""
    actions: tuple[StepAction, ...] = ()
    same_by: api_calls.Spelled | None = None


@dataclass(frozen=True, slots=True)
class FirstSteps:
    steps: tuple[Step, ...]
    may_load: bool
    """Whether the example may still be loaded: nothing exists that it would stand beside."""

    @property
    def done(self) -> int:
        return sum(step.is_done for step in self.steps)


def of_deployment(request: HttpRequest) -> FirstSteps | None:
    """The steps, until the first tenant has claimed; afterwards None, for one query."""
    if Tenant.objects.exists():
        return None
    workload = Workload.objects.order_by("created_at").first()
    pool = Pool.objects.select_related("workload", "good_version").order_by("created_at").first()
    has_spec, has_key = SyncSpec.objects.exists(), ApiKey.objects.filter(revoked_at=None).exists()
    operates, manages = may(request, Role.OPERATOR), may(request, Role.ADMIN)
    parts = [
        ("Workload", f"{workload.name} is ready." if workload else "The image to run, its volumes and its ports.",
         bool(workload), (StepAction("New workload", reverse("new-workload")),) if operates else (), None),
        ("Pool", f"{pool.name} keeps containers warm." if pool else "Containers of a workload, kept warm for claims.",
         bool(pool), _pool_actions(workload) if operates else (), None),
        ("Where state goes", "What tenants write is saved and restored." if has_spec else
         "Without a sync spec, what a tenant writes is lost on release.",
         has_spec, _sink_actions(pool) if operates else (), None),
        ("API key", "Programs can sign in." if has_key else "Programs claim with a key." if manages else
         "Programs claim with a key. Ask an admin for one.",
         has_key, (StepAction("Create API key", reverse("settings-keys"), "i-key-round"),) if manages else (), None),
        ("First claim", "Give a tenant a container, here or by the API.", False,
         (StepAction("Claim for a tenant", reverse("pool-claim", args=[pool.pk]), "i-flame"),)
         if operates and pool else (), _claim_call(request, pool) if pool else None),
    ]  # fmt: skip
    following = next(number for number, part in enumerate(parts) if not part[2])
    steps = tuple(
        Step(title, text, is_done, number == following, () if is_done else actions, same_by)
        for number, (title, text, is_done, actions, same_by) in enumerate(parts)
    )
    return FirstSteps(steps, operates and pool is None and not has_spec)


def _pool_actions(workload: Workload | None) -> tuple[StepAction, ...]:
    return (StepAction("New pool", reverse("new-pool")),) if workload else ()


def _sink_actions(pool: Pool | None) -> tuple[StepAction, ...]:
    """Both ways need a pool."""
    if pool is None:
        return ()
    own = StepAction("New sync spec", f"{reverse('new-spec')}?pool={pool.pk}")
    if embedded_s3.running() is None:
        return (own,)
    built_in = StepAction(
        "Use the built-in S3", reverse("use-built-in-s3", args=[pool.pk]), "i-hard-drive", is_post=True
    )
    return built_in, own


def _claim_call(request: HttpRequest, pool: Pool) -> api_calls.Spelled:
    config = config_fields.sample(pool.serving_version.spec.config_schema)
    return api_calls.spell(request, [api_calls.claim(api_calls.TENANT, pool.pk, config)])
