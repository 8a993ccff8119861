"""What a text can mean: objects by id, name or address, pages, and actions, by the user's role.

Each kind is read with a bounded query, exact ids first. The palette and the search page show the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Model, Q
from django.http import HttpRequest
from django.urls import reverse

from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import may
from boilerhouse.dashboard.context import THEMES
from boilerhouse.dashboard.templatetags.ui import short
from pools import tombstones
from pools.models import Container, Pool, Workload
from syncing.models import SyncRun, SyncSpec
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState

MAX_TEXT = 200
MAX_SCANNED = 5000
"""Containers whose ids are compared at their ends, which no index does."""
ADDRESS_PARTS = 4


@dataclass(frozen=True, slots=True)
class Result:
    """One thing to open or to do."""

    name: str
    detail: str
    url: str
    icon: str
    do: str = "go"
    """``go`` to the page, ``ask`` the action's question, or ``post`` the fields."""
    fields: tuple[tuple[str, str], ...] = ()
    is_exact: bool = False

    @property
    def fields_json(self) -> str:
        return json.dumps(dict(self.fields))


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    results: Sequence[Result]


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is always there."""

    name: str
    url_name: str
    icon: str
    words: str
    """Other words that mean it."""
    least: Role = Role.VIEWER


PAGES = (
    Page("Overview", "overview", "i-gauge", "home start needs attention"),
    Page("Pools", "pools", "i-boxes", "list capacity"),
    Page("Containers", "containers", "i-container", "list logs shell cpu memory disk"),
    Page("Tenants", "tenants", "i-users", "list claims"),
    Page("Usage of tenants", "usage", "i-users", "cpu memory hours month csv", Role.ADMIN),
    Page("Sync", "sync", "i-arrow-down-up", "monitor transfers runs history sinks"),
    Page("Sync specs", "sync-specs", "i-arrow-down-up", "list mappings s3 sinks"),
    Page("Workloads", "workloads", "i-blocks", "list images versions"),
    Page("Activity", "activity", "i-activity", "events log timeline csv"),
    Page("Settings", "settings", "i-settings", "processes node version"),
    Page("Nodes", "nodes", "i-hard-drive", "settings machines cordon labels placement capacity"),
    Page("This node", "node", "i-hard-drive", "settings disk memory engine images checks doctor backup", Role.OPERATOR),
    Page("Notifications", "notifications", "i-activity", "settings alerts webhook slack mail mute", Role.ADMIN),
    Page("API keys", "settings-keys", "i-key-round", "settings tokens create revoke", Role.ADMIN),
    Page("Users and roles", "users", "i-users", "settings people invite operator viewer", Role.ADMIN),
    Page("Your account", "account", "i-lock", "settings sessions password sign out"),
    Page("Credentials of sinks", "credentials", "i-lock", "settings s3 secret access key", Role.ADMIN),
    Page("Credentials of registries", "registries", "i-lock", "settings docker image pull login", Role.ADMIN),
    Page("Limits and policy", "settings-deployment", "i-shield", "settings deployment retention variables", Role.ADMIN),
    Page("Changes", "changes", "i-clock", "settings audit log who", Role.ADMIN),
    Page("New pool", "new-pool", "i-plus", "create add", Role.OPERATOR),
    Page("New workload", "new-workload", "i-plus", "create add image", Role.OPERATOR),
    Page("New sync spec", "new-spec", "i-plus", "create add save state", Role.OPERATOR),
)


@dataclass(slots=True)
class Search:
    """One search. ``most`` is how many results each kind may have."""

    request: HttpRequest
    text: str
    most: int
    _words: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.text.replace("\0", "").strip()[:MAX_TEXT]
        self._words = self.text.lower().split()

    def groups(self) -> list[Group]:
        """Groups with results. Actions come first if the text begins with a verb, otherwise exact ids."""
        if not self.text:
            return []
        objects = [
            Group("Pools", self._named(Pool, "pool", "i-boxes")),
            Group("Workloads", self._named(Workload, "workload", "i-blocks")),
            Group("Tenants", self._tenants()),
            Group("Containers", self._containers()),
            Group("Sync specs", self._named(SyncSpec, "sync-spec", "i-arrow-down-up")),
            Group("Sync runs", self._runs()),
        ]
        exact = [result for group in objects for result in group.results if result.is_exact]
        rest = [Group(one.title, [r for r in one.results if not r.is_exact]) for one in objects]
        actions, pages = Group("Actions", self._actions()), Group("Pages", self._pages())
        first = [actions, Group("Exact", exact)] if self._verbs() else [Group("Exact", exact), actions]
        return [group for group in (*first, *rest, pages) if group.results]

    def only_exact(self) -> Result | None:
        """The one thing with exactly this id; None if there is none, or several of different kinds."""
        exact = [result for group in self.groups() if group.title == "Exact" for result in group.results]
        return exact[0] if len(exact) == 1 else None

    # Objects ---------------------------------------------------------------------------------------

    def _named(self, model: type[Model], url_name: str, icon: str) -> list[Result]:
        rows = model._base_manager.filter(Q(pk__icontains=self.text) | Q(name__icontains=self.text))
        kind = str(model._meta.verbose_name).capitalize()
        results = []
        for pk, name in self._ranked(rows, "pk", "name"):
            detail = f"{kind}, {name}" if name != pk else kind
            results.append(Result(pk, detail, reverse(url_name, args=[pk]), icon, is_exact=pk == self.text))
        return results

    def _ranked(self, rows: object, *columns: str) -> list[tuple[str, ...]]:
        """The exact one, then those that begin with the text, then the others."""
        results: list[tuple[str, ...]] = []
        for condition in ({"pk": self.text}, {"pk__istartswith": self.text}, {}):
            if len(results) >= self.most:
                break
            more = rows.filter(**condition).order_by("pk").values_list(*columns)[: self.most]  # type: ignore[attr-defined]
            results += [row for row in more if row not in results]
        return results[: self.most]

    def _tenants(self) -> list[Result]:
        ids = [pk for (pk,) in self._ranked(Tenant.objects.filter(pk__icontains=self.text), "pk")]
        pools = dict(Assignment.objects.live().filter(tenant_id__in=ids).values_list("tenant_id", "pool_id"))
        return [
            Result(pk, f"Tenant in {pools[pk]}" if pk in pools else "Tenant", reverse("tenant", args=[pk]), "i-users",
                   is_exact=pk == self.text)
            for pk in ids
        ]  # fmt: skip

    def _containers(self) -> list[Result]:
        """By the end of the id, as pages show it, by the whole id, by the engine's, or by its address."""
        end = self.text.removeprefix("c-").lower().replace("-", "")
        by = Q(runtime_id__startswith=self.text.lower()) if len(end) >= 4 else Q(pk__in=[])
        if _is_address(self.text):
            by |= Q(address=self.text)
        rows = list(Container.objects.filter(by).values_list("pk", "pool_id")[: self.most])
        if len(end) >= 4 and set(end) <= set("0123456789abcdef"):
            containers = Container.objects.values_list("pk", "pool_id")[:MAX_SCANNED]
            rows += [row for row in containers if row[0].hex.endswith(end) and row not in rows][: self.most]
        results = [self._container(pk, f"Container of {pool_id}") for pk, pool_id in rows]
        if len(end) >= 4 and len(results) < self.most:
            removed = tombstones.ending_with(end, self.most)
            results += [self._container(pk, "Container, removed") for pk in removed]
        return results[: self.most]

    def _container(self, pk: UUID, detail: str) -> Result:
        is_exact = self.text in (str(pk), short(str(pk)))
        return Result(short(str(pk)), detail, reverse("container", args=[pk]), "i-container", is_exact=is_exact)

    def _runs(self) -> list[Result]:
        try:
            run = SyncRun.objects.filter(pk=UUID(self.text)).first()
        except ValueError:
            return []
        if run is None:
            return []
        name = f"{run.direction} of {run.tenant_id}"
        return [Result(name, f"Sync run, {run.state}", reverse("run", args=[run.pk]), "i-arrow-down-up", is_exact=True)]

    # Pages and actions -----------------------------------------------------------------------------

    def _pages(self) -> list[Result]:
        def fits(page: Page) -> bool:
            text = f"{page.name} {page.words}".lower()
            return may(self.request, page.least) and all(word in text for word in self._words)

        pages = [page for page in PAGES if fits(page)]
        return [Result(page.name, "Page", reverse(page.url_name), page.icon) for page in pages][: self.most]

    def _verbs(self) -> list[str]:
        """The verbs that the first word may be the beginning of."""
        first = self._words[0] if self._words else ""
        return [verb for verb in ("theme", *ACTIONS) if len(first) >= 3 and verb.startswith(first)]

    def _actions(self) -> list[Result]:
        results: list[Result] = []
        what = " ".join(self._words[1:])
        for verb in self._verbs():
            if verb == "theme":
                results += _themes(what)
            elif may(self.request, Role.OPERATOR):
                results += list(ACTIONS[verb](what, self.most))
        return results[: self.most]


def _is_address(text: str) -> bool:
    parts = text.split(".")
    return ":" in text or (len(parts) == ADDRESS_PARTS and all(part.isdigit() for part in parts))


def _themes(what: str) -> list[Result]:
    icons = {"auto": "i-monitor", "light": "i-sun", "dark": "i-moon"}
    return [
        Result(f"Theme: {'as the system' if theme == 'auto' else theme}", "Action", reverse("set-theme"), icons[theme],
               "post", (("theme", theme),))
        for theme in THEMES
        if what in theme or (theme == "auto" and what in "system")
    ]  # fmt: skip


def _pools(verb: str, url_name: str, icon: str, do: str, **condition: bool) -> Callable[[str, int], Iterator[Result]]:
    def find(what: str, most: int) -> Iterator[Result]:
        rows = Pool.objects.filter(pk__icontains=what, is_deleting=False, **condition).order_by("pk")
        for pk in rows.values_list("pk", flat=True)[:most]:
            yield Result(f"{verb} {pk}", "Action on a pool", reverse(url_name, args=[pk]), icon, do)

    return find


def _tenants(
    verb: str, url_name: str, icon: str, do: str, states: Sequence[AssignmentState]
) -> Callable[[str, int], Iterator[Result]]:
    def find(what: str, most: int) -> Iterator[Result]:
        rows = Assignment.objects.filter(state__in=states, tenant__id__icontains=what).order_by("tenant_id")
        for pk in rows.values_list("tenant_id", flat=True)[:most]:
            yield Result(f"{verb} {pk}", "Action on a tenant", reverse(url_name, args=[pk]), icon, do)

    return find


ASSIGNED, FAILED = AssignmentState.ASSIGNED, AssignmentState.RELEASE_FAILED
ACTIONS: dict[str, Callable[[str, int], Iterator[Result]]] = {
    "pause": _pools("Pause refill of", "pool-pause", "i-pause", "post", is_paused=False, is_draining=False),
    "resume": _pools("Resume", "pool-resume", "i-play", "post"),
    "drain": _pools("Drain", "pool-drain", "i-droplets", "ask", is_draining=False),
    "claim": _pools("Claim in", "pool-claim", "i-flame", "go", is_draining=False),
    "scale": _pools("Scale", "pool", "i-boxes", "go"),
    "release": _tenants("Release", "tenant-release", "i-undo-2", "ask", [ASSIGNED]),
    "retry": _tenants("Retry save of", "tenant-release", "i-rotate-cw", "ask", [FAILED]),
    "save": _tenants("Save now", "tenant-sync", "i-upload", "go", [ASSIGNED]),
}
"""By the verb that an operator types first; each takes the rest of the text."""
