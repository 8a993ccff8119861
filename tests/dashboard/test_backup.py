"""``backup`` and ``restore``: all rows, no secrets, and only into an empty deployment."""

from __future__ import annotations

import hashlib
import json
import stat
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings as settings_of_django
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from boilerhouse.core import audit, deployment, encryption
from boilerhouse.core.errors import Conflict, Invalid, NotFound
from boilerhouse.core.events import emit
from boilerhouse.core.models import ApiKey, Deployment, Event
from boilerhouse.operations import archives, restoration, signatures
from pools import volumes
from pools.models import Container, HostCounter, HostLease, Pool, RegistryCredential
from pools.states import ContainerState
from syncing.models import Credential, SavedState, SyncRun
from tenants.models import Assignment, Tenant
from tenants.states import AssignmentState
from tests import make

pytestmark = pytest.mark.slow

CANARY = "c4n4ry-in-a-sink"


def wipe() -> None:
    """An empty migrated database without a deployment id."""
    tables = [apps.get_model(label)._meta.db_table for label in archives.KEPT if label != "auth.Group"]
    tables += [User.groups.through._meta.db_table, User.user_permissions.through._meta.db_table]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA defer_foreign_keys = ON")
            for table in tables:
                cursor.execute(f'DELETE FROM "{table}"')
        else:
            cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
    deployment._checked.cache_clear()


def rows_of(label: str) -> list[dict[str, Any]]:
    return list(apps.get_model(label)._base_manager.order_by("pk").values())


@pytest.fixture
def furnished(data_dir: Path) -> Path:
    """A row of every stored kind; one active tenant, one with a pending claim, one with a failed save."""
    pool = make.make_pool("p")
    spec = make.make_sync_spec(pool, sink_secrets={"accessKeyId": "A", "secretAccessKey": CANARY})
    Credential.objects.create(id="cred", name="cred", secret={"secretAccessKey": CANARY})
    secret = {"username": "puller", "password": CANARY}
    RegistryCredential.objects.create(id="reg", name="reg", registry="registry.example.com", secret=secret)
    ApiKey.objects.create(id="k1", name="key", role="admin", key_hash="0" * 64)
    User.objects.create_user("olga", password="a-long-password", is_staff=True).groups.add(
        Group.objects.get(name="operator")
    )
    audit.record("pool.create", "p", after={"id": "p"})
    emit("pool.scaled", pool_id="p", targetSize=1)
    states = {"alice": AssignmentState.ASSIGNED, "bob": AssignmentState.PENDING, "carl": AssignmentState.RELEASE_FAILED}
    for tenant_id, state in states.items():
        tenant = Tenant.objects.create(id=tenant_id, generation=7)
        container = make.make_container(pool, state=ContainerState.CLAIMED)
        volumes.prepare(container.pk, container.uid, make.make_spec())
        volumes.latch(container.pk, tenant_id, 7)
        HostLease.objects.create(resource=f"uid {container.uid}", container_id=container.pk)
        Assignment.objects.create(
            tenant=tenant, pool=pool, generation=7, state=state, container=container, container_ref=container.pk,
            version=container.version, uid=container.uid, deadline=timezone.now(), config={"a": [1, None]},
            was_assigned=state != AssignmentState.PENDING,
            secrets={"TOKEN": CANARY} if state == AssignmentState.PENDING else None,
        )  # fmt: skip
    HostLease.objects.create(resource="10.64.0.9", container_id=uuid.uuid4())
    HostCounter.objects.create(name="uid", position=200_009)
    HostCounter.objects.create(name="address", position=9)
    run = SyncRun.objects.create(
        spec=spec, tenant_id="alice", generation=7, direction="upload", trigger="release", state="succeeded"
    )
    SavedState.objects.create(
        tenant_id="alice", mapping=spec.mappings.get(), place="x", location="t/alice/state", container_path="/state",
        pool_id="p", generation=7, run_id=run.pk, files=1, bytes=2,
    )  # fmt: skip
    return data_dir


def take(path: Path) -> archives.Archive:
    archives.write(path, lambda _: None)
    return archives.Archive(path)


def test_every_model_is_kept_or_left_out_for_a_reason():
    known = set(archives.KEPT) | set(archives.LEFT_OUT)
    assert {m._meta.label for m in apps.get_models() if not m._meta.proxy} == known


def test_a_restored_database_holds_the_same_rows(furnished, tmp_path):
    changed = {"core.Deployment", "core.Node", "tenants.Assignment", "pools.Container", "pools.Pool", "pools.HostLease"}
    changed.add("pools.HostCounter")
    same = [label for label in archives.KEPT if label not in changed | {"core.AuditEntry"}]
    before = {label: rows_of(label) for label in same}
    archive = take(tmp_path / "b.zip")
    assert all(archive.manifest.rows[label] for label in ("tenants.Tenant", "core.Event", "syncing.SavedState"))
    wipe()

    done = restoration.restore(archive, None)

    assert {label: rows_of(label) for label in same} == before
    assert done.containers_found == 3
    assert done.tenants_gone == []
    assert set(User.objects.get().groups.values_list("name", flat=True)) == {"operator"}
    assert User.objects.get().check_password("a-long-password")
    assert Credential.objects.get().secret == {"secretAccessKey": CANARY}
    assert deployment.deployment_id() == archive.manifest.deployment_id


def test_no_secret_of_anybody_is_readable_in_it(furnished, tmp_path):
    take(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as found:
        content = b"".join(found.read(name) for name in found.namelist())

    assert CANARY.encode() not in content
    for key in (*encryption.in_force(), "test-secret"):
        assert key.encode() not in content
    assert (tmp_path / "b.zip").stat().st_mode & 0o777 == 0o600


def test_a_claim_under_way_is_given_up_because_its_secrets_are_gone(furnished, tmp_path):
    """Provisioned without its secrets, the container would be unusable for its tenant."""
    archive = take(tmp_path / "b.zip")
    wipe()
    restoration.restore(archive, None)

    row = Assignment.objects.get(tenant_id="bob")
    assert (row.state, row.outcome, row.secrets) == ("releasing", "claim_aborted", None)
    assert row.container.state == ContainerState.REMOVING
    assert Assignment.objects.get(tenant_id="alice").state == "assigned"
    assert Assignment.objects.get(tenant_id="carl").state == "release_failed"
    assert Pool.objects.get().release_failed == 1


def test_on_a_machine_without_the_directories_their_tenants_hold_nothing(furnished, tmp_path):
    """A missing directory must not be saved: it would look as if the tenant had emptied it."""
    archive = take(tmp_path / "b.zip")
    wipe()
    for path in volumes.containers_dir().iterdir():
        volumes.destroy(path)

    done = restoration.restore(archive, None)

    assert sorted(done.tenants_gone) == ["alice", "carl"]
    assert done.containers_gone == 3
    assert set(Assignment.objects.values_list("state", "outcome")) == {("ended", "host_lost")}
    assert not Container.objects.exists()
    assert Pool.objects.get().release_failed == 0
    assert not HostLease.objects.filter(resource__startswith="uid").exists()
    assert SavedState.objects.get().tenant_id == "alice"


def test_a_directory_that_another_claim_has_used_since_is_not_taken_for_this_ones(furnished, tmp_path):
    archive = take(tmp_path / "b.zip")
    held = Assignment.objects.get(tenant_id="alice").held_container
    wipe()
    (volumes.home(held) / "claimed").write_text(json.dumps({"tenantId": "mallory", "generation": 9}))

    done = restoration.restore(archive, None)

    assert done.tenants_gone == ["alice"]
    assert Assignment.objects.get(tenant_id="alice").outcome == "host_lost"


def test_ids_given_out_after_the_backup_are_not_given_out_again(furnished, tmp_path):
    """Containers started after the backup may still use their uid and address, and clients have seen their events."""
    archive = take(tmp_path / "b.zip")
    last = Event.objects.order_by("-id")[0].pk
    wipe()
    restoration.restore(archive, None)
    after = dict(HostCounter.objects.values_list("name", "position"))

    assert 200_009 + 100_000 <= after["uid"] < 1_200_000
    assert after["address"] - 9 >= 1 << 14
    emit("pool.scaled", pool_id="p", targetSize=2)
    assert Event.objects.order_by("-id")[0].pk > last + 100_000
    assert Deployment.objects.get().events_forgotten_to > last, (
        "a client that resumes from before is told to begin anew"
    )
    assert HostLease.objects.get(resource="10.64.0.9").released_at, "an address of a container that is gone rests"


@pytest.mark.parametrize("what", ["rows", "nothing_readable", "cut", "another_format", "newer", "absent"])
def test_what_cannot_be_restored_is_refused_and_nothing_has_changed(furnished, tmp_path, what):
    path = tmp_path / "b.zip"
    archive = take(path)
    if what == "rows":
        with pytest.raises(restoration.NotEmpty):
            restoration.restore(archive, None)
        return
    wipe()
    match what:
        case "absent":
            path.unlink()
        case "nothing_readable":
            path.write_bytes(b"no zip at all")
        case "cut":
            path.write_bytes(path.read_bytes()[:-200])
        case _:
            rewrite(path, {"format": 99} if what == "another_format" else {"migrations": [["pools", "9999_later"]]})
    with pytest.raises((NotFound, Invalid, archives.NotABackup)):
        restoration.restore(archives.Archive(path), None)
    assert not Tenant.objects.exists()


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as old:
        return {name: old.read(name) for name in old.namelist()}


def put(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)


def rewrite(path: Path, changes: dict[str, Any]) -> None:
    """Another manifest, signed with the deployment's key."""
    content = contents(path)
    content["manifest.json"] = json.dumps({**json.loads(content["manifest.json"]), **changes}).encode()
    content["signature"] = signatures.signature(content["manifest.json"], encryption.in_force()[0]).encode()
    put(path, content)


PLANTED = {"username": "mallory", "is_superuser": True, "is_staff": True, "is_active": True}


def with_a_planted_admin(content: dict[str, bytes]) -> None:
    (row,) = map(json.loads, content["auth.User.ndjson"].splitlines())
    content["auth.User.ndjson"] += json.dumps({**row, **PLANTED, "id": 99}).encode() + b"\n"


def counted(content: dict[str, bytes]) -> None:
    manifest = json.loads(content["manifest.json"])
    manifest["rows"]["auth.User"] = 2
    data = content["auth.User.ndjson"]
    manifest["seals"]["auth.User.ndjson"] = [len(data), hashlib.sha256(data).hexdigest()]
    content["manifest.json"] = json.dumps(manifest).encode()


def planted(content: dict[str, bytes]) -> None:
    with_a_planted_admin(content)


def planted_and_sealed(content: dict[str, bytes]) -> None:
    with_a_planted_admin(content)
    counted(content)


def planted_and_signed_by_another_key(content: dict[str, bytes]) -> None:
    planted_and_sealed(content)
    content["signature"] = signatures.signature(content["manifest.json"], Fernet.generate_key().decode()).encode()


def planted_as_of_an_earlier_version(content: dict[str, bytes]) -> None:
    planted_and_sealed(content)
    manifest = json.loads(content["manifest.json"])
    del manifest["seals"], content["signature"]
    content["manifest.json"] = json.dumps({**manifest, "format": 1}).encode()


def led_elsewhere(content: dict[str, bytes]) -> None:
    content["manifest.json"] = content["manifest.json"].replace(
        json.loads(content["manifest.json"])["deployment_id"].encode(), b"../../tmp/x"
    )


def without_a_part(content: dict[str, bytes]) -> None:
    del content["auth.User.ndjson"]


def with_one_part_more(content: dict[str, bytes]) -> None:
    content["core.Process.ndjson"] = b"{}"


def without_its_signature(content: dict[str, bytes]) -> None:
    del content["signature"]


def of_two_backups(content: dict[str, bytes]) -> None:
    content["auth.User.ndjson"] = content["core.Event.ndjson"]


FORGED = [
    planted, planted_and_sealed, planted_and_signed_by_another_key, planted_as_of_an_earlier_version, led_elsewhere,
    without_a_part, with_one_part_more, without_its_signature, of_two_backups,
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_a_backup_that_was_altered_is_refused_in_words_and_nothing_has_changed(furnished, tmp_path, forge, capsys):
    """A superuser added to the archive was restored, and a deployment id that leaves the data directory was
    accepted."""
    take(path := tmp_path / "b.zip")
    content = contents(path)
    forge(content)
    put(path, content)
    wipe()
    before = (furnished / "deployment-id").read_text()

    with pytest.raises(CommandError) as refused:
        call_command("restore", str(path))

    assert refused.value.returncode == 1
    words = (
        "altered",
        "did not sign",
        "does not name a deployment",
        "not a backup",
        "lacks",
        "in addition to what was signed",
    )
    assert any(word in str(refused.value) for word in words)
    assert not User.objects.exists()
    assert not Tenant.objects.exists()
    assert (furnished / "deployment-id").read_text() == before


FOREIGN = [
    "/etc/cron.d/x",
    "../../etc/x",
    "a/b.ndjson",
    "keys/secret-key",
    "auth.User.ndjson/",
    "C:\\x",
    "x\x1b[2J",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_backup_with_a_foreign_path_is_refused(furnished, tmp_path, name):
    """None of a backup's parts becomes a file, and none has a path."""
    take(path := tmp_path / "b.zip")
    put(path, {**contents(path), name: b"x"})
    with pytest.raises(archives.NotABackup):
        archives.Archive(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR])
def test_a_backup_with_a_link_or_a_device_is_refused(furnished, tmp_path, kind):
    take(path := tmp_path / "b.zip")
    content = contents(path)
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind if name == "auth.User.ndjson" else stat.S_IFREG) << 16
            new.writestr(info, data)
    with pytest.raises(archives.NotABackup, match="not a regular file"):
        archives.Archive(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_backup_with_a_part_twice_is_refused(furnished, tmp_path):
    """Of two parts with one name, one could be checked and the other read."""
    take(path := tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as more:
        more.writestr("auth.User.ndjson", b"{}")
    with pytest.raises(archives.NotABackup, match="twice"):
        archives.Archive(path)


@given(st.data())
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_changed_in_the_file_is_found_before_anything_is_written(furnished, tmp_path_factory, data):
    """Truncated or changed anywhere."""
    path = tmp_path_factory.mktemp("b") / "b.zip"
    if not _taken:
        archives.write(path, lambda _: None)
        _taken.append(path.read_bytes())
    whole = bytearray(_taken[0])
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at:]
    path.write_bytes(whole)
    try:
        archive = archives.Archive(path, allow_unsigned=True)
        archive.check(encryption.in_force(), settings_of_django.BOILERHOUSE_KEY_PEPPER)
    except (archives.NotABackup, archives.KeysMissing):
        return
    good = path.with_name("good.zip")
    good.write_bytes(_taken[0])
    said = [[*archive.rows(label)] for label in archives.KEPT]
    assert contents(good)["manifest.json"] == archive._text
    assert sum(map(len, said)) == sum(archive.manifest.rows.values()), "what was changed means nothing"


_taken: list[bytes] = []


def test_a_backup_of_a_version_that_did_not_sign_needs_a_word_and_is_restored_with_it(furnished, tmp_path):
    """The operator confirms that nobody else could write the file."""
    take(path := tmp_path / "b.zip")
    content = contents(path)
    manifest = json.loads(content["manifest.json"])
    del manifest["seals"], content["signature"]
    put(path, {**content, "manifest.json": json.dumps({**manifest, "format": 1}).encode()})
    wipe()
    with pytest.raises(CommandError, match="--unsigned"):
        call_command("restore", str(path))
    assert not User.objects.exists()

    call_command("restore", str(path), "--unsigned")

    assert User.objects.get().username == "olga"


def test_a_backup_of_a_version_that_had_fewer_models_is_restored(furnished, tmp_path):
    """With --unsigned, too; it raised LookupError or KeyError."""
    take(path := tmp_path / "b.zip")
    content = contents(path)
    manifest = json.loads(content["manifest.json"])
    for label in ("pools.RegistryCredential", "pools.ImagePull"):
        del content[f"{label}.ndjson"], manifest["rows"][label]
    del manifest["seals"], content["signature"]
    put(path, {**content, "manifest.json": json.dumps({**manifest, "format": 1}).encode()})
    wipe()

    call_command("restore", str(path), "--unsigned")

    assert User.objects.get().username == "olga"
    assert not RegistryCredential.objects.exists()


def test_keys_that_are_none_are_refused_in_words(furnished, tmp_path):
    """A file of keys with other content."""
    archive = take(tmp_path / "b.zip")
    (tmp_path / "keys.json").write_text(json.dumps(dict.fromkeys(archives.KEY_FILES[:3], "no key")))
    wipe()
    with pytest.raises(archives.KeysMissing):
        restoration.restore(archive, archives.read_keys(tmp_path / "keys.json"))
    assert not Tenant.objects.exists()


def test_a_key_that_has_become_an_older_one_still_opens_its_backups(furnished, tmp_path):
    """Keys change while backups exist elsewhere."""
    archive = take(tmp_path / "b.zip")
    encryption.key_file().write_text(",".join([Fernet.generate_key().decode(), *encryption.in_force()]))
    wipe()

    assert restoration.restore(archive, None).rows


def test_a_backup_that_lacks_rows_is_refused_whole(furnished, tmp_path):
    take(path := tmp_path / "b.zip")
    with zipfile.ZipFile(path) as found:
        counts = json.loads(found.read("manifest.json"))["rows"]
    rewrite(path, {"rows": {**counts, "syncing.SavedState": 2}})
    wipe()
    with pytest.raises(archives.NotABackup):
        restoration.restore(archives.Archive(path), None)
    assert not Tenant.objects.exists()


def test_without_its_keys_a_backup_is_refused_and_with_them_restored(furnished, tmp_path, settings):
    archives.write_keys(keys := tmp_path / "keys.json")
    assert keys.stat().st_mode & 0o777 == 0o600
    archive = take(tmp_path / "b.zip")
    wipe()
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(archives.KeysMissing):
        restoration.restore(archive, None)
    settings.BOILERHOUSE_ENCRYPTION_KEYS = []
    encryption.key_file().write_text(Fernet.generate_key().decode())
    with pytest.raises(archives.KeysMissing):
        restoration.restore(archive, None)
    assert not Tenant.objects.exists()

    restoration.restore(archive, archives.read_keys(keys))

    assert Credential.objects.get().secret == {"secretAccessKey": CANARY}


def test_another_pepper_is_refused_because_no_key_of_the_api_would_work(furnished, tmp_path, settings):
    archive = take(tmp_path / "b.zip")
    wipe()
    settings.BOILERHOUSE_KEY_PEPPER = "another"
    with pytest.raises(archives.KeysMissing):
        restoration.restore(archive, None)


def test_the_data_directory_of_another_deployment_is_refused(furnished, tmp_path, settings):
    archive = take(tmp_path / "b.zip")
    wipe()
    (furnished / "deployment-id").write_text("0000000000")
    with pytest.raises(deployment.DeploymentMismatch):
        restoration.restore(archive, None)


def test_a_file_that_is_there_is_never_written_over(furnished, tmp_path):
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(Conflict):
        archives.write(tmp_path / "b.zip", lambda _: None)
    with pytest.raises(Conflict):
        archives.write_keys(tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".b")] == []


def test_rights_of_a_group_survive_by_name(furnished, tmp_path):
    group = Group.objects.create(name="night-shift")
    group.permissions.add(Permission.objects.get(codename="view_pool"))
    archive = take(tmp_path / "b.zip")
    group.delete()
    wipe()
    restoration.restore(archive, None)

    assert [p.codename for p in Group.objects.get(name="night-shift").permissions.all()] == ["view_pool"]
