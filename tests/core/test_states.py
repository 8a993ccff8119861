"""Each state machine is written only by ``transition`` of its queryset, which checks the table of transitions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilerhouse.core import states as core_states
from boilerhouse.core.models import Node
from boilerhouse.core.states import NodeState
from boilerhouse.notifications import states as notification_states
from boilerhouse.notifications.models import Delivery
from boilerhouse.notifications.states import DeliveryState
from pools import states as pool_states
from pools.models import Container, ImagePull
from pools.states import ContainerState, PullState
from syncing import states as sync_states
from syncing.models import SyncRun
from syncing.states import SyncRunState
from tenants import states as tenant_states
from tenants.models import Assignment
from tenants.states import AssignmentState

ROOT = Path(__file__).resolve().parents[2]
ENUMS = {"AssignmentState", "ContainerState", "DeliveryState", "NodeState", "PullState", "SyncRunState"}
READS = {"filter", "exclude", "get", "Q", "Count"}
WRITES = {
    "update", "create", "bulk_update", "bulk_create", "get_or_create", "update_or_create", "save", "setattr",
    "aupdate", "acreate", "abulk_update", "abulk_create", "aget_or_create", "aupdate_or_create", "asave",
}  # fmt: skip
SQL = re.compile(r"\bSET\b.*\bstate\b\s*=", re.IGNORECASE | re.DOTALL)
WRITERS = {
    "boilerhouse/core/querysets.py",
    "pools/querysets.py",
    "syncing/querysets.py",
    "tenants/models.py",
    "boilerhouse/notifications/models.py",
}
MACHINES = [
    (Assignment, AssignmentState, tenant_states.TRANSITIONS),
    (Container, ContainerState, pool_states.TRANSITIONS),
    (Node, NodeState, core_states.TRANSITIONS),
    (Delivery, DeliveryState, notification_states.TRANSITIONS),
    (ImagePull, PullState, pool_states.PULL_TRANSITIONS),
    (SyncRun, SyncRunState, sync_states.TRANSITIONS),
]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("boilerhouse", "pools", "syncing", "tenants"):
        for path in (ROOT / folder).rglob("*.py"):
            if "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def members(tree: ast.Module) -> set[str]:
    """The enumerations, and names under which the module has members of them."""
    found = set(ENUMS)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        if all(isinstance(one, ast.Attribute) and names_in(one) & ENUMS for one in values):
            found |= {one for target in node.targets for one in names_in(target)}
    return found


def names_in(value: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def writes(tree: ast.Module) -> Iterator[str]:
    """The statements of a module that write the state of a row, with their lines.

    A writing call with a state counts whatever the value is: a literal, a variable, a condition.
    """
    known = members(tree)

    def is_a_state(value: ast.AST) -> bool:
        return bool(names_in(value) & known)

    for node in ast.walk(tree):
        match node:
            case ast.Call():
                given = [one.value for one in node.keywords if one.arg == "state"]
                is_write = called(node) in WRITES or any(map(is_a_state, given))
                if given and is_write and called(node) not in READS:
                    yield f"{node.lineno}: {called(node)}(state=…)"
                named = [one for part in [*node.args, *(k.value for k in node.keywords)] for one in ast.walk(part)]
                if called(node) in WRITES and any(
                    isinstance(one, ast.Constant) and one.value == "state" for one in named
                ):
                    yield f'{node.lineno}: {called(node)}("state")'
            case ast.Dict():
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "state" and is_a_state(value):
                        yield f'{node.lineno}: {{"state": …}}'
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                is_attribute = any(isinstance(one, ast.Attribute) and one.attr == "state" for one in targets)
                if is_attribute and node.value is not None and is_a_state(node.value):
                    yield f"{node.lineno}: .state ="
            case ast.Constant(value=str(text)) if SQL.search(text):
                yield f"{node.lineno}: SET state"


ALLOWED = {
    # The object as the row is by the transition before it; to read it again would be a query of every warm claim.
    ("tenants/preparation.py", ".state ="),
    # Of rows that are about to be made.
    ("pools/image_pulls.py", 'get_or_create("state")'),
    ("pools/image_pulls.py", '{"state": …}'),
    ("boilerhouse/operations/restoration.py", '{"state": …}'),
    ("boilerhouse/core/node_joins.py", '{"state": …}'),
    # Rows of demo data, which are made as they are.
    ("boilerhouse/operations/demo_data/colleagues.py", "Delivery(state=…)"),
    ("boilerhouse/operations/demo_data/history.py", "add(state=…)"),
    ("boilerhouse/operations/demo_data/history.py", "assignment(state=…)"),
    ("boilerhouse/operations/demo_data/history.py", ".state ="),
    ("boilerhouse/operations/demo_data/present.py", "add(state=…)"),
    ("boilerhouse/operations/demo_data/present.py", "assignment(state=…)"),
    # An answer.
    ("tenants/api/views.py", '{"state": …}'),
}


def test_nobody_but_the_querysets_writes_a_state():
    """Nine places in four modules wrote a run's state, two of them unconditionally."""
    found = {(path, *one.split(": ", 1)) for path, tree in modules() if path not in WRITERS for one in writes(tree)}
    assert {one for one in found if (one[0], one[2]) not in ALLOWED} == set()
    assert {(path, what) for path, _, what in found} == ALLOWED


def test_no_row_of_a_state_machine_is_saved_as_a_whole():
    """``save()`` would write the state that was read."""
    whole = {
        path
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node) == "save" and not node.args
        if not {"force_insert", "update_fields"} & {one.arg for one in node.keywords}
    }
    # Sync specs with their mappings, settings, and users.
    assert whole == {
        "syncing/services.py",
        "boilerhouse/core/deployment_settings.py",
        "boilerhouse/core/users.py",
    }


@pytest.mark.parametrize("machine", MACHINES, ids=lambda one: one[0].__name__)
def test_transitions_refuse_what_the_table_does_not_have(machine, db):
    """The transition table of sync runs was unused."""
    model, states, table = machine
    assert set(table) == set(states)
    for source in states:
        for target in set(states) - table[source]:
            with pytest.raises(AssertionError):
                model.objects.all().transition(source, target)


def test_the_search_finds_writes():
    """Ensures that the test above finds something."""
    text = "\n".join(
        [
            "rows.update(state=SyncRunState.FAILED)",
            "Run.objects.create(state=SyncRunState.FAILED if is_bad else other)",
            'changes = {"state": PullState.DONE}',
            'row.save(update_fields=["state"])',
            "row.state = SyncRunState.FAILED",
            'cursor.execute("UPDATE x SET state = 1")',
            'rows.update(state="failed", owner=None)',
            "rows.update(state=after)",
            'Run.objects.bulk_update(rows, ["error", "state"])',
            'setattr(row, "state", after)',
            "cursor.execute(\"update x set error = '', state = %s\", [after])",
            "OVER = SyncRunState.FAILED",
            "row.state = OVER",
            "rows.filter(state=SyncRunState.FAILED)",
        ]
    )
    found = sorted({int(one.split(":")[0]) for one in writes(ast.parse(text))})
    assert found == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
