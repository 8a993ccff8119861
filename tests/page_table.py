"""The table of all pages and their states. ``tests/dashboard/test_page_table.py`` compares it with the URL table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, reverse

from boilerhouse.dashboard.urls import urlpatterns
from tests import page_world
from tests.page_world import GONE

LISTS: dict[str, tuple[str, ...]] = {
    "overview": ("",), "pools": ("", "?state=attention", "?q=zzz"), "containers": ("", "?state=claimed", "?q=zzz"),
    "tenants": ("", "?q=zzz", "?page=2"), "usage": ("",), "sync": ("", "?state=failed"), "sync-specs": ("",), "workloads": ("",),
    "activity": ("", "?show=routine", "?part=people", "?q=zzz"), "search": ("", "?q=e", "?q=zzz"),
    "settings": ("",), "settings-keys": ("",), "node": ("",), "nodes": ("", "?state=silent", "?state=lost", "?q=zzz"), "users": ("",), "account": ("",), "credentials": ("",),
    "registries": ("",), "notifications": ("",), "settings-deployment": ("", "?tab=json"), "changes": ("", "?q=zzz"),
    "new-pool": ("",), "new-workload": ("", "?tab=json"), "new-spec": ("",), "password_change": ("",),
}  # fmt: skip
"""Pages that no object is named by, with their queries."""
OBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pool": ("pool", ("", "?tab=usage", "?tab=configuration", "?tab=timeline")), "pool-claim": ("pool", ("",)),
    "container": ("container", ("",)), "terminal": ("container", ("",)),
    "tenant": ("tenant", ("",)), "tenant-sync": ("tenant", ("",)),
    "tenant-files": ("tenant", ("", "?sort=-size")), "tenant-file": ("tenant", ("",)), "tenant-file-edit": ("tenant", ("",)),
    "tenant-file-move": ("tenant", ("",)),
    "run": ("run", ("",)), "sync-spec": ("spec", ("",)), "edit-spec": ("spec", ("", "?tab=json")),
    "workload": ("workload", ("", "?tab=json", "?compare=1")), "edit-workload": ("workload", ("", "?tab=json")),
    "user": ("user", ("",)), "rotate-key": ("key", ("",)), "credential": ("credential", ("",)),
    "registry-credential": ("registry", ("",)), "notification": ("notification", ("",)),
}  # fmt: skip
"""Pages of one object: its kind, and the queries."""
QUESTIONS: dict[str, str] = {
    "pool-drain": "pool", "pool-delete": "pool", "container-remove": "container", "tenant-release": "tenant",
    "tenant-discard": "tenant", "tenant-erase": "tenant", "tenant-forget": "tenant", "backup-put-back": "tenant",
    "sync-trigger": "spec", "delete-spec": "spec", "workload-roll-back": "workload", "workload-refresh": "workload",
    "delete-workload": "workload", "revoke-key": "key", "user-disable": "user", "user-end-sessions": "user",
    "user-new-password": "user", "delete-credential": "credential", "delete-registry-credential": "registry",
    "delete-notification": "notification", "tenant-file-remove": "tenant", "node-lost": "node", "node-drain": "node",
}  # fmt: skip
"""Actions that ask first, by the kind of their object: without scripts, the question is a page."""
OF_A_SELECTION = {"release-many", "containers-remove"}
"""Questions about what is selected in a list."""
PARTS = {"pool-effect", "node-part", "container-logs", "tenant-file-download", "tenant-file-archive"}
"""Parts of pages, and files."""
OF_A_SESSION = {"containers-removed", "bulk-release"}
"""What a session has done; there is no such page before."""
SIGNED_OUT = {"login", "one-time-login", "set-password"}
NOT_PAGES = {"logout", "set-theme", "set-times"}
"""Forms of the shell, which lead back."""


@dataclass(frozen=True, slots=True)
class PageState:
    """A page as it is while its object is in this state."""

    route: str
    state: str
    path: str

    @property
    def is_gone(self) -> bool:
        return self.state == GONE


def routes() -> dict[str, URLPattern]:
    return {str(one.name): one for one in urlpatterns}


def path_of(route: str, arguments: dict[str, Any]) -> str:
    names = routes()[route].pattern.converters  # type: ignore[attr-defined]
    return reverse(route, kwargs={name: arguments[name] for name in names})


def lists(state: str = "filled") -> Iterator[PageState]:
    for route, queries in LISTS.items():
        for query in queries:
            yield PageState(route, f"{state} {query}".strip(), reverse(route) + query)


def objects() -> Iterator[PageState]:
    """Each page of an object in each state of ``page_world.build``, and of one that is not there."""
    for route, (kind, queries) in OBJECTS.items():
        for state in (*page_world.KINDS[kind], GONE):
            for query in queries if state != GONE else ("",):
                arguments = page_world.address(kind, page_world.id_of(kind, state))
                yield PageState(route, f"{state} {query}".strip(), path_of(route, arguments) + query)


def questions() -> Iterator[PageState]:
    for route, kind in QUESTIONS.items():
        for state in (*page_world.KINDS[kind], GONE):
            arguments = page_world.address(kind, page_world.id_of(kind, state))
            yield PageState(route, state, path_of(route, arguments))
