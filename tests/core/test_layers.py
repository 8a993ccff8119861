"""Import rules: the contracts in pyproject.toml name every module that they should."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("boilerhouse", "pools", "syncing", "tenants") for path in (ROOT / name).rglob("*.py")]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_module_of_rest_views_is_closed_to_pages_and_commands():
    """Pages and commands imported REST views for look-ups that belong to the models."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [contract] = [one for one in contracts if one["name"] == "No page or command imports a REST view"]
    views = {
        _module(path) for path in SOURCES if re.search(r"^class \w+\((?:Api|Waiting)View\)", path.read_text(), re.M)
    }
    own = {"boilerhouse.operations.stats", "boilerhouse.operations.metrics", "boilerhouse.operations.health"}
    own.add("tenants.api.waiting")  # a class for views
    assert set(contract["forbidden_modules"]) == views - own
    commands = {".".join(_module(path).split(".")[:-2]) for path in SOURCES if path.parent.name == "commands"}
    assert commands <= set(contract["source_modules"])


def _calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def test_only_emit_makes_events():
    """An event created elsewhere does not reach its listeners, and its id may commit out of order."""
    makers = {
        _module(path)
        for path in SOURCES
        if re.search(r"\bEvent\b", path.read_text())
        and _calls(path) & {"Event", "Event.objects.create", "Event.objects.bulk_create", "Event.objects.get_or_create"}
        and re.search(r"^from boilerhouse\.core\.models import .*\bEvent\b", path.read_text(), re.M)
    }
    assert makers == {"boilerhouse.core.events"}


def test_only_the_package_of_volumes_reaches_into_directories_by_handles():
    """Two modules opened tenants' directories themselves; in a volume any path may be a link."""
    by_handle = re.compile(r"\b(?:src_|dst_)?dir_fd=|\bO_NOFOLLOW\b.*\bO_DIRECTORY\b|\bO_DIRECTORY\b.*\bO_NOFOLLOW\b")
    users = {_module(path) for path in SOURCES if by_handle.search(path.read_text())}
    others = {name for name in users if not name.startswith("pools.volumes.")}
    assert others == {
        "syncing.sinks.local_program",  # the directory of a sink, which tenants have no hold of
        "pools.guest.connections",  # the directory of an agent's socket, sealed before a tenant comes
        "pools.guest.sealing",
    }


def test_pages_live_in_the_dashboard():
    """docs/architecture.md states one rule for the location of pages."""
    by_template = re.compile(r"^from django\.(shortcuts|template\.response|template\.loader) import", re.M)
    users = {_module(path) for path in SOURCES if by_template.search(path.read_text())}
    others = {name for name in users if not name.startswith("boilerhouse.dashboard.")}
    assert others == {
        "boilerhouse.api.openapi",  # the reference of the API, as its library draws it
        "boilerhouse.core.admin_actions",  # admin classes live with their models
        "boilerhouse.web.transport",  # what came without TLS reaches no page
        "boilerhouse.web.problems",  # and what has no address has none
    }


def test_core_names_no_app():
    """Imports do not show models and tasks that are named in strings."""
    named = re.compile(r"""["'](pools|syncing|tenants|dashboard)[.:][a-z_]""")
    core = [path for path in SOURCES if path.is_relative_to(ROOT / "boilerhouse" / "core")]
    assert core
    assert [_module(path) for path in core if named.search(path.read_text())] == []


def test_no_test_module_imports_another():
    """Shared code is in a helper or conftest; an imported test module would be collected under two names."""
    modules = list((ROOT / "tests").rglob("test_*.py"))
    by_name = re.compile(r"^\s*(?:from|import) (?:\.|tests\.\w+\.)?test_\w+|^\s*from tests\.\w+ import .*\btest_", re.M)
    importers = [
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py") if by_name.search(path.read_text())
    ]
    assert modules
    assert not importers


WRITES = {
    "create", "update", "delete", "save", "transition", "get_or_create", "update_or_create", "bulk_create",
    "bulk_update", "select_for_update",
}  # fmt: skip
BOUNDARIES = {"recording", "transaction.atomic", "audit.record", "emit"}
DOORS = {"api", "pages", "sections", "commands"}


def _rules_of_doors(tree: ast.Module) -> set[str]:
    """Calls that write rows, write the audit log, or open a transaction."""
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    writes = {call for call in calls if call.rpartition(".")[2] in WRITES and (".objects." in call or "user." in call)}
    return writes | calls & BOUNDARIES


def test_doors_are_thin():
    """Rules computed in a view were computed before the lock, and the other entry points did not have them."""
    doors = [path for path in SOURCES if DOORS & set(path.parts) or path.name == "views.py"]
    found = {_module(path): rules for path in doors if (rules := _rules_of_doors(ast.parse(path.read_text())))}
    assert found == {
        # Signing in is nobody else's.
        "boilerhouse.dashboard.views": {"transaction.atomic", "get_user_model().objects.select_for_update"},
        # Encryption is below the models, so it cannot record what it did.
        "boilerhouse.operations.management.commands.rotate_secrets": {"audit.record"},
    }
    text = "Pool.objects.filter(pk=1).update(a=1)\nwith recording(): pass\npools.update_pool(1)"
    assert _rules_of_doors(ast.parse(text)) == {"Pool.objects.filter(pk=1).update", "recording"}


def test_no_two_test_modules_that_run_together_have_one_name():
    """pytest refuses to collect the second one, which nobody notices who runs one folder at a time."""
    folders = ("core", "dashboard", "pools", "syncing", "tenants")
    names = Counter(path.name for folder in folders for path in (ROOT / "tests" / folder).glob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
