"""The form of a sync spec."""

from __future__ import annotations

from typing import Any

from boilerhouse.dashboard.documents import Part, Section, Sections, get
from pools.models import Pool
from syncing.models import Credential
from syncing.states import Direction, Mode, Quiesce

KINDS = (("s3", "S3, or compatible"), ("http", "WebDAV"), ("local", "a directory of this host"))
DIRECTIONS = (
    (Direction.BIDIRECTIONAL.value, "saved and restored"),
    (Direction.UPLOAD.value, "saved only"),
    (Direction.DOWNLOAD.value, "restored only"),
)
QUIESCE = (
    (Quiesce.FREEZE.value, "as it is at one moment: it stands still for some milliseconds"),
    (Quiesce.NONE.value, "each file by itself: it never stands still"),
)
MODES = ((Mode.SYNC.value, "as it is: what is deleted here is deleted there"), (Mode.COPY.value, "never deletes"))
MAPPING = {"containerPath": "/state", "sinkPath": "", "direction": "bidirectional", "mode": "sync"}


def sections_of(*, is_new: bool) -> Sections:
    """For one request: what may be chosen is read once."""
    pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)] if is_new else []
    credentials = [(pk, pk) for pk in Credential.objects.order_by("pk").values_list("pk", flat=True)]
    first: tuple[Part, ...] = (Part("name", "Name", "A label; may repeat"),)
    if is_new:
        first = (
            Part("id", "Id", "Letters, digits and -; stays for ever. Empty: made from the name"), *first,
            Part("poolId", "Pool", "Whose tenants it saves; stays for ever", "choice", pools),
        )  # fmt: skip
    sinks: dict[str, tuple[Part, ...]] = {
        "s3": (
            Part("bucket", "Bucket"), Part("region", "Region"),
            Part("endpoint", "Endpoint", "Empty: AWS. Otherwise http(s)://host[:port]"),
            Part("prefix", "Prefix", "Before every path; ${tenantId} keeps tenants apart"),
            Part("provider", "Provider", "rclone's name of it, such as Minio or Cloudflare"),
            Part("credentialId", "Credential", "One of Settings, Credentials", "choice", [("", "none"), *credentials]),
            Part("accessKeyId", "Access key id", "Where no credential is named"),
            Part("secretAccessKey", "Secret access key", "Kept encrypted; left empty, it stays as it is", "secret"),
            Part("rcloneFlags", "rclone flags", "Only those that change nothing of what is saved", "list"),
        ),
        "http": (
            Part("endpoint", "Address", "http(s)://host[:port]/path"),
            Part("headers", "Headers", "As JSON; a value of null stays as it is stored", "json"),
        ),
        "local": (Part("path", "Directory", "Below BOILERHOUSE_LOCAL_SINK_ROOT"),),
    }  # fmt: skip

    def sections(value: dict[str, Any]) -> list[Section]:
        chosen = str(get(value, "/sink/type") or "s3")
        is_known = chosen in sinks
        kinds = KINDS if is_known else (*KINDS, (chosen, f"{chosen}, which this form does not know"))
        kind = Part("type", "Kind", kind="choice", options=kinds, default="s3", reloads=True)
        lede = "Where the files are kept." if is_known else "What it has besides is in the JSON only."
        return [
            Section("Sync spec", first),
            Section("Mappings", (
                Part("containerPath", "In the container", "A directory in one of its volumes"),
                Part("pattern", "Files", "Empty: all. *.pt at the top, **/*.log anywhere"),
                Part("sinkPath", "At the sink", "After the prefix; ${tenantId} stands for the tenant"),
                Part("direction", "Direction", kind="choice", options=DIRECTIONS, default="bidirectional"),
                Part("mode", "Mode", kind="choice", options=MODES, default="sync"),
            ), path="mappings", blank=MAPPING, is_list=True, one="Mapping"),
            Section("Sink", (kind, *sinks.get(chosen, ())), lede, "sink"),
            Section("When", (
                Part("onClaim", "Restore when a tenant claims", kind="flag"),
                Part("onRelease", "Save when it is released", kind="flag"),
                Part("intervalMs", "Save while it works, every", "Empty: no timer", "ms"),
                Part("quiesce", "While it works, save", kind="choice", options=QUIESCE, default="freeze"),
                Part("allowManualTrigger", "Save and restore by hand is allowed", kind="flag", default=True),
            ), path="policy"),
        ]  # fmt: skip

    return sections


def start(pool_id: str) -> dict[str, Any]:
    """Where a new sync spec begins."""
    return {
        "poolId": pool_id,
        "mappings": [{**MAPPING, "sinkPath": "state/"}],
        "sink": {"type": "s3", "bucket": "", "region": "", "prefix": "t/${tenantId}/"},
        "policy": {"onClaim": True, "onRelease": True, "intervalMs": 300000, "allowManualTrigger": True},
    }
