"""A kind of sink is one class: the declarations of each kind, and a kind that only this test defines."""

from __future__ import annotations

import re
from typing import ClassVar

import pytest
from django.contrib.auth.models import User
from rest_framework import serializers

from boilerhouse.api.serializers import KeyField, camel
from syncing import errors, rclone, sinks
from syncing.models import SyncSpec
from syncing.sinks import FormField, LocalSink, Sink, refusals
from syncing.sinks.inputs import StoredSink
from syncing.sinks.local_input import LocalSinkInput
from tests import sink_servers
from tests.forms import form_of
from tests.make import make_pool, make_workload

pytestmark = pytest.mark.any_database
TOKEN = "token-of-a-made-up-kind"


def _declares(kind, name):
    return getattr(kind, name, None) is not getattr(Sink, name, None)


@pytest.mark.parametrize("kind", sinks.KINDS.values(), ids=sinks.KINDS)
def test_each_kind_declares_all_that_one_needs(kind):
    assert kind.label
    assert not getattr(kind, "__abstractmethods__", None), "it can be made"
    fields = kind.serializer()().get_fields()
    assert fields.pop("type").choices == {kind.type: kind.type}
    shown = {one.path for one in kind.form}
    assert shown == {camel(name) for name in fields}, "the form asks for all that the API takes, and no more"
    secret = {camel(name) for name, field in fields.items() if field.write_only}
    assert secret == {one.path for one in kind.form if one.kind == "secret"}, "no form shows a secret"
    assert _declares(kind, "environment")
    assert _declares(kind, "from_spec")


def test_each_kind_is_tried_against_a_server():
    assert {end.kind for end in sink_servers.ENDS.values()} == set(sinks.KINDS.values())


def test_signs_of_one_kind_mean_nothing_at_another():
    """A file's name in rclone's output was read as an answer of S3, for every kind of sink."""
    line = ["SlowDown.txt: the upload was cut"]
    assert isinstance(sinks.S3Sink("b", "r", "").rclone_failure(line), errors.SinkThrottled)
    assert sinks.WebDavSink("http://dav.example").rclone_failure(line) is None


# A kind that only this test knows ---------------------------------------------------------------------


class MadeUpInput(LocalSinkInput):
    type = serializers.ChoiceField(["made-up"])
    token = KeyField(max_length=100, write_only=True)

    def take(self) -> StoredSink:
        return StoredSink(self._public_fields("type", "path"), {"token": self.validated_data["token"]})


class MadeUpSink(LocalSink):
    """A local sink that also wants a token."""

    type: ClassVar[str] = "made-up"
    label: ClassVar[str] = "A kind that was made up"
    form: ClassVar[tuple[FormField, ...]] = (*LocalSink.form, FormField("token", "Token", kind="secret"))
    rclone_signs: ClassVar[refusals.Signs] = ((("made-up refusal",), errors.SinkDenied),)

    @classmethod
    def serializer(cls):
        return MadeUpInput


@pytest.fixture
def made_up(monkeypatch, settings, tmp_path, data_dir):
    root = tmp_path / "made-up"
    root.mkdir()
    settings.BOILERHOUSE_LOCAL_SINK_ROOT = str(root)
    monkeypatch.setitem(sinks.KINDS, MadeUpSink.type, MadeUpSink)
    make_pool("notes", workload=make_workload("w"))
    return {"type": "made-up", "path": str(root / "one")}


def test_a_new_kind_works_by_the_api(call, made_up):
    mapping = {"containerPath": "/state", "sinkPath": "${tenantId}/", "direction": "bidirectional", "mode": "sync"}
    body = {"id": "s", "poolId": "notes", "mappings": [mapping], "policy": {}, "sink": made_up}
    refused = call("POST", "sync-specs", body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/sink/token")
    made = call("POST", "sync-specs", {**body, "sink": {**made_up, "token": TOKEN}})
    assert made.status_code == 201, made.content
    assert made.json()["sink"] == made_up
    assert made.json()["sinkHealth"]["state"] == "healthy"
    assert TOKEN not in call("GET", "sync-specs/s").content.decode()
    spec = SyncSpec.objects.get()
    assert spec.sink_secrets == {"token": TOKEN}
    assert isinstance(spec.resolved_sink(), MadeUpSink)
    assert spec.mappings.get().location("alice") == "one/alice"


def test_a_new_kind_works_by_the_form(client, made_up):
    client.force_login(User.objects.create_superuser("ada"))
    data = form_of(client.get("/sync/specs/new").content.decode())
    data["/sink/type"], data["do"] = "made-up", "tab:form"
    page = client.post("/sync/specs/new", data).content.decode()
    assert MadeUpSink.label in page
    data = form_of(page)
    data["/mappings/0/sinkPath"] = "${tenantId}/"
    data["/id"], data["/sink/path"], data["/sink/token"], data["do"] = "s", made_up["path"], TOKEN, "save"
    answer = client.post("/sync/specs/new", data)
    assert answer.status_code == 303, re.findall(r'class="err".*', answer.content.decode())
    spec = SyncSpec.objects.get()
    assert (spec.sink, spec.sink_secrets) == (made_up, {"token": TOKEN})
    assert TOKEN not in client.get("/sync/specs/s/edit").content.decode()


def test_a_new_kind_reads_the_failures_of_its_rclone(made_up):
    outcome = rclone.Outcome(lines=["x: made-up refusal"])
    sink = sinks.resolve(made_up, {})
    assert isinstance(rclone._failure(1, outcome, sink), errors.SinkDenied)
    assert isinstance(rclone._failure(1, outcome, LocalSink(sink.root)), errors.TransferBroke)
