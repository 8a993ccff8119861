"""A node's row: what its worker reports, what operators change, and how the API, the command and events show it."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone
from django_q.models import OrmQ

import pools.tasks
from boilerhouse.controller import controller
from boilerhouse.core import deployment, nodes
from boilerhouse.core.models import AuditEntry, Event, Node
from boilerhouse.core.states import NodeState
from boilerhouse.dashboard import change_words
from boilerhouse.dashboard.templatetags.ui import plain_sentence
from boilerhouse.operations.metrics import DatabaseCollector
from pools import capacity
from tests.api_calls import problem, refused_fields
from tests.make import make_container, make_node, make_pool, make_workload

pytestmark = pytest.mark.any_database


@pytest.fixture
def node(data_dir, fake_engine) -> Node:
    deployment.deployment_id()
    return make_node()


def test_a_worker_reports_what_its_node_has(node):
    assert node.reported_at is None
    pools.tasks.report_node()
    node.refresh_from_db()
    assert node.cpus >= 1
    assert node.memory_mb > 0
    assert 0 < node.disk_free_mb <= node.disk_mb
    assert (node.engine_version, node.engine_error) == ("fake", "")
    assert abs(node.reported_at - timezone.now()) < timedelta(minutes=1)


def test_an_engine_that_does_not_answer_is_said_with_the_last_known_amounts(node, fake_engine):
    pools.tasks.report_node()
    fake_engine.is_down = True
    pools.tasks.report_node()
    node.refresh_from_db()
    assert node.engine_error
    assert node.cpus >= 1
    fake_engine.is_down = False
    pools.tasks.report_node()
    node.refresh_from_db()
    assert node.engine_error == ""


def test_every_living_node_is_asked_for_its_report(node):
    make_node("there")
    Node.objects.filter(pk=make_node("gone").pk).update(state=NodeState.SILENT)
    controller.report_nodes()
    assert sorted(OrmQ.objects.values_list("key", flat=True)) == sorted([f"pool@{node.pk}", "pool@there"])


def test_what_is_promised_is_the_sum_over_all_containers_that_are_not_gone(node):
    make_node("there")
    big = make_pool(workload=make_workload(resources={"cpus": 2.0, "memory_mb": 1024}))
    small = make_pool(workload=make_workload(resources={"cpus": 0.5, "memory_mb": 128}))
    for pool, where, state in ((big, None, "idle"), (big, None, "removing"), (small, "there", "failed")):
        make_container(pool, node=where, state=state)
    assert capacity.promised() == {
        node.pk: capacity.Promised(2, 4.0, 2048), "there": capacity.Promised(1, 0.5, 128),
    }  # fmt: skip


def test_the_api_shows_nodes_and_changes_what_operators_say_of_them(call, node):
    make_container()
    pools.tasks.report_node()
    [shown] = call("GET", "nodes").json()["items"]
    assert shown == call("GET", f"nodes/{node.pk}").json()
    assert (shown["id"], shown["state"], shown["cordoned"]) == (node.pk, "active", False)
    assert (shown["promised"]["containers"], shown["engineVersion"]) == (1, "fake")

    answer = call("PUT", f"nodes/{node.pk}", {**shown, "labels": {"zone": "cellar"}, "overcommit": 1.5})
    assert answer.status_code == 200, answer.content
    assert (answer.json()["labels"], answer.json()["overcommit"]) == ({"zone": "cellar"}, 1.5)
    entry = AuditEntry.objects.get(action="node.update")
    assert entry.after == {"labels": {"zone": "cellar"}, "overcommit": 1.5}
    assert change_words.words(entry.action) == "Node changed"
    problem(call("GET", "nodes/nowhere"), 404, "node_not_found")
    for verb in ("cordon", "uncordon"):
        problem(call("POST", f"nodes/nowhere/{verb}", {}), 404, "node_not_found")


def test_a_change_of_what_has_changed_meanwhile_is_refused(call, node):
    """What the worker reports is no such change."""
    read = call("GET", f"nodes/{node.pk}")
    pools.tasks.report_node()
    first = call("PUT", f"nodes/{node.pk}", {"labels": {"a": "1"}}, If_Match=read["ETag"])
    assert first.status_code == 200, first.content
    problem(call("PUT", f"nodes/{node.pk}", {"labels": {}}, If_Match=read["ETag"]), 412)
    assert Node.objects.get().labels == {"a": "1"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"labels": {"": "x"}}, "/labels/"),
        ({"labels": {"-a": "x"}}, "/labels/-a"),
        ({"labels": {"a": "x" * 201}}, "/labels/a"),
        ({"labels": {f"l{number}": "" for number in range(51)}}, "/labels"),
        ({"overcommit": 0}, "/overcommit"),
        ({"overcommit": 1001}, "/overcommit"),
        ({"color": "red"}, "/color"),
    ],
)
def test_what_cannot_be_said_of_a_node_is_refused(call, node, body, pointer):
    fields, _ = refused_fields(call("PUT", f"nodes/{node.pk}", body))
    assert {where for where, _ in fields} == {pointer}
    assert Node.objects.get().labels == {}


def test_a_cordon_is_told_once_and_outlives_silence(call, node):
    """A node that was away comes back as an operator left it."""
    assert call("POST", f"nodes/{node.pk}/cordon", {"reason": "new memory"}).json()["cordoned"]
    again = call("POST", f"nodes/{node.pk}/cordon", {"reason": "another"}).json()
    assert (again["cordonReason"], again["cordonedBy"]) == ("new memory", "key admin")
    event = Event.objects.get(type="node.cordoned")
    assert plain_sentence(event) == f"Node {node.pk} gets no new containers: new memory"
    Node.objects.update(heartbeat_at=F("heartbeat_at") - nodes.SILENT_AFTER)
    nodes.watch()
    Node.objects.update(heartbeat_at=timezone.now())
    nodes.watch()
    node.refresh_from_db()
    assert (node.state, node.is_cordoned) == (NodeState.ACTIVE, True)

    for _ in range(2):
        assert not call("POST", f"nodes/{node.pk}/uncordon").json()["cordoned"]
    assert plain_sentence(Event.objects.get(type="node.uncordoned")).endswith("gets new containers again")
    actions = AuditEntry.objects.filter(kind="node").order_by("at").values_list("action", flat=True)
    assert list(actions) == ["node.cordon", "node.uncordon"]


def test_the_command_lists_and_cordons(node):
    pools.tasks.report_node()
    call_command("nodes", "cordon", node.pk, "--reason", "x" * 600, stderr=StringIO())
    printed = StringIO()
    call_command("nodes", "list", stdout=printed)
    assert node.pk in printed.getvalue()
    assert "active, cordoned" in printed.getvalue()
    call_command("nodes", "uncordon", node.pk, stderr=StringIO())
    printed = StringIO()
    call_command("nodes", "list", "--output", "json", stdout=printed)
    [row] = json.loads(printed.getvalue())["items"]
    assert (row["id"], row["cordoned"]) == (node.pk, False)
    with pytest.raises(CommandError) as refused:
        call_command("nodes", "cordon", "nowhere")
    assert refused.value.returncode == 3


def test_the_metric_names_the_cordoned_node(node):
    make_node("there")
    Node.objects.filter(pk="there").update(cordoned_at=timezone.now())
    [family] = [one for one in DatabaseCollector().collect() if one.name == "boilerhouse_node_cordoned"]
    found = {sample.labels["node"]: sample.value for sample in family.samples}
    assert found == {"there": 1.0, node.pk: 0.0}
