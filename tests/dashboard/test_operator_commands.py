"""Commands that need no containers: their output and exit codes, and that a dry run changes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from boilerhouse.core.events import emit
from boilerhouse.core.models import AuditEntry
from pools.errors import IdTaken
from pools.models import Pool, Workload
from syncing import credentials, places
from syncing.models import Credential, SyncSpec
from tests.make import make_pool

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = """
kind: Workload
id: web
name: Web
image: web:1
volumes:
  state: {containerPath: /state}
"""
POOL = """
kind: Pool
id: web
workloadId: web
minSize: 0
maxSize: 4
"""
CREDENTIAL = """
kind: Credential
id: store
name: store
accessKeyId: AKID
secretAccessKey: APPLIED-CANARY
"""
SPEC = """
kind: SyncSpec
id: web
poolId: web
mappings: [{containerPath: /state, sinkPath: state/, direction: bidirectional, mode: sync}]
sink: {type: s3, bucket: bucket, region: us-east-1, prefix: "t/${tenantId}/", endpoint: "http://127.0.0.1:1", credentialId: store}
policy: {onClaim: true, onRelease: true}
"""


def run(*words: str, code: int = 0) -> Any:
    """The command's JSON; it exits with ``code``."""
    out, ended = io.StringIO(), 0
    try:
        call_command(*words, "--output", "json", stdout=out, stderr=io.StringIO(), skip_checks=True)
    except CommandError as error:
        ended = error.returncode
    assert ended == code, out.getvalue()
    return json.loads(out.getvalue()) if out.getvalue().strip() else None


def outcomes(found: Any) -> dict[str, str]:
    return {f"{one['kind']} {one['id']}": one["outcome"] for one in found["documents"]}


@pytest.fixture
def folder(tmp_path, db, data_dir) -> Path:
    (tmp_path / "a.yaml").write_text("---".join((SPEC, POOL, CREDENTIAL, WORKLOAD)))
    return tmp_path


def test_documents_are_applied_in_the_order_in_which_they_refer_and_again_change_nothing(folder):
    kinds = {"Workload web", "Pool web", "Credential store", "SyncSpec web"}
    assert outcomes(run("apply", str(folder), "--dry-run")) == dict.fromkeys(kinds, "created")
    assert not Workload.objects.exists()
    assert not AuditEntry.objects.exists()
    assert outcomes(run("apply", str(folder))) == dict.fromkeys(kinds, "created")
    assert SyncSpec.objects.get().credential_id == "store"
    audited = AuditEntry.objects.count()
    assert outcomes(run("apply", str(folder))) == dict.fromkeys(kinds, "unchanged")
    assert AuditEntry.objects.count() == audited
    assert Workload.objects.get().versions.count() == 1


def test_what_differs_is_shown_and_changed_and_no_secret_is_printed(folder):
    run("apply", str(folder))
    text = (folder / "a.yaml").read_text()
    (folder / "a.yaml").write_text(
        text.replace("web:1", "web:2").replace("maxSize: 4", "maxSize: 6").replace("APPLIED-CANARY", "OTHER-CANARY")
    )
    found = run("apply", str(folder), "--dry-run")
    assert outcomes(found)["SyncSpec web"] == "unchanged"
    assert "CANARY" not in json.dumps(found)
    by_kind = {one["kind"]: one for one in found["documents"]}
    assert any('+  "image": "web:2"' in line for line in by_kind["Workload"]["difference"])
    assert Pool.objects.get().max_size == 4
    run("apply", str(folder))
    assert Pool.objects.get().max_size == 6
    assert Workload.objects.get().versions.count() == 2
    assert credentials.find("store").secret["secretAccessKey"] == "OTHER-CANARY"


def test_with_one_bad_document_nothing_is_applied(folder):
    bad = ["kind: Nonsense\nid: x", "- a list", "kind: Pool\nid: lost\nworkloadId: nowhere", "kind: Workload\nname: no id\nimage: i",
           "kind: Workload\nid: w\nname: w\nimage: i\nevil: 1", "kind: Workload\nid: nul\nname: 'a\\0'\nimage: \"a\\0b\""]  # fmt: skip
    (folder / "b.yaml").write_text("\n---\n".join(bad))
    (folder / "c.yaml").write_text("a: [")
    found = run("apply", str(folder), code=1)
    assert sum(one["outcome"] == "failed" for one in found["documents"]) == len(bad) + 1
    assert not found["applied"]
    assert not Workload.objects.exists()
    assert not AuditEntry.objects.exists()
    said = json.dumps([one["errors"] for one in found["documents"]])
    for words in ("kind must be one of", "No such workload", "/evil", "needs an id", "NUL"):
        assert words in said
    assert all(one["place"] for one in found["documents"])
    run("apply", str(folder / "none.yaml"), code=3)


def test_a_document_cannot_move_a_pool_to_another_workload(folder):
    run("apply", str(folder))
    (folder / "a.yaml").write_text(
        WORKLOAD.replace("id: web", "id: other") + "---" + POOL.replace("workloadId: web", "workloadId: other")
    )
    found = run("apply", str(folder), code=1)
    assert outcomes(found) == {"Workload other": "created", "Pool web": "failed"}
    assert Pool.objects.get().workload_id == "web"
    assert not Workload.objects.filter(pk="other").exists(), "the plan's other documents are not applied"


def test_a_document_that_fails_only_when_it_is_applied_undoes_the_others(folder, monkeypatch):
    """The plan found nothing wrong; somebody was faster."""

    def taken(**_: object) -> None:
        raise IdTaken("The id web is already in use.")

    monkeypatch.setattr("syncing.services.create_spec", taken)
    found = run("apply", str(folder), code=1)
    assert outcomes(found)["SyncSpec web"] == "failed"
    assert not found["applied"]
    assert not Workload.objects.exists()
    assert not AuditEntry.objects.exists()
    monkeypatch.undo()
    assert run("apply", str(folder))["applied"]


def test_apply_asks_sinks_before_it_writes(folder, monkeypatch):
    """A sink that does not answer must not hold the database's lock meanwhile."""
    asked: list[bool] = []
    original = places.check_to_save

    def check(spec, mappings):
        asked.append(Workload.objects.exists() or Credential.objects.exists())
        assert spec.resolved_sink()
        return original(spec, mappings)

    monkeypatch.setattr(places, "check_to_save", check)
    run("apply", str(folder), "--dry-run")
    assert not asked, "asking a sink may write there"
    run("apply", str(folder))
    assert asked == [False]


def test_events_are_printed_in_their_order_with_filters(db, data_dir):
    make_pool("p")
    for number in range(5):
        emit("pool.scaled", pool_id="p", before=number, targetSize=number + 1)
    emit("pool.warning", pool_id="q", detail="<x>")
    out = io.StringIO()
    call_command("events", "--pool", "p", "--limit", "3", "--output", "json", stdout=out, skip_checks=True)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["payload"]["before"] for one in lines] == [2, 3, 4]
    out = io.StringIO()
    call_command("events", "--after", str(lines[-1]["id"]), stdout=out, skip_checks=True)
    assert "pool.warning" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


def test_the_doctor_names_what_is_missing_and_what_to_do(db, data_dir):
    found = {}
    for one in run("doctor", code=1)["findings"]:
        found.setdefault(one["name"], []).append(one)
    assert found["database"][0]["state"] == "ok"
    assert found["engine"][0]["state"] == "ok"
    assert found["transfers"][0]["detail"].startswith("rclone")
    missing = [one for one in found["processes"] if one["state"] == "failure"]
    assert any("no controller" in one["detail"] for one in missing)
    assert any("run_worker" in one["todo"] for one in missing)
    (data_dir / "keys").mkdir(exist_ok=True)
    (data_dir / "keys" / "secret-key").write_text("x")
    (data_dir / "keys" / "secret-key").chmod(0o644)
    told = [one for one in run("doctor", code=1)["findings"] if "keys are accessible" in one["detail"]]
    assert "chmod 600" in told[0]["todo"]


def test_the_doctor_says_that_an_engine_does_not_answer_and_goes_on(db, data_dir, monkeypatch):
    from boilerhouse.operations import doctor
    from pools.errors import EngineUnavailable

    def away() -> Any:
        raise EngineUnavailable("The container engine does not answer.")

    monkeypatch.setattr(doctor, "get_runtime", away)
    found = {one["name"]: one for one in run("doctor", code=1)["findings"]}
    assert found["engine"]["state"] == "failure"
    assert found["transfers"]["state"] == "ok"
