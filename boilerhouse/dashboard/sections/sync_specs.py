"""The form of a sync spec."""

from __future__ import annotations

from typing import Any

from boilerhouse.dashboard.documents import Part, Section, Sections, get
from pools.models import Pool
from syncing.models import Credential
from syncing.sinks import KINDS, FormField
from syncing.states import Direction, Mode, Quiesce

DIRECTIONS = (
    (Direction.BIDIRECTIONAL.value, "saved and restored"),
    (Direction.UPLOAD.value, "saved only"),
    (Direction.DOWNLOAD.value, "restored only"),
)
QUIESCE = (
    (Quiesce.FREEZE.value, "consistent snapshot, with a brief freeze"),
    (Quiesce.NONE.value, "file by file, without a freeze"),
)
MODES = ((Mode.SYNC.value, "mirror: deletes at the sink too"), (Mode.COPY.value, "copy: never deletes at the sink"))
MAPPING = {"containerPath": "/state", "sinkPath": "", "direction": "bidirectional", "mode": "sync"}


def _part(field: FormField, credentials: list[tuple[str, str]]) -> Part:
    """What a kind of sink declares, as the form has it."""
    if field.kind == "credential":
        return Part(field.path, field.label, field.hint, "choice", [("", "none"), *credentials])
    return Part(field.path, field.label, field.hint, field.kind)


def sections_of(*, is_new: bool) -> Sections:
    """Built per request, because the choices are read once."""
    pools = [(pk, pk) for pk in Pool.objects.order_by("pk").values_list("pk", flat=True)] if is_new else []
    credentials = [(pk, pk) for pk in Credential.objects.order_by("pk").values_list("pk", flat=True)]
    first: tuple[Part, ...] = (Part("name", "Name", "A label; need not be unique"),)
    if is_new:
        first = (
            Part("id", "Id", "Letters, digits and -. Cannot be changed later. Leave empty to derive it from the name"),
            *first,
            Part("poolId", "Pool", "The pool whose tenants are saved. Cannot be changed later", "choice", pools),
        )  # fmt: skip

    def sections(value: dict[str, Any]) -> list[Section]:
        chosen = str(get(value, "/sink/type") or "s3")
        of_kind, kinds = KINDS.get(chosen), [(name, kind.label) for name, kind in KINDS.items()]
        if of_kind is None:
            kinds.append((chosen, f"{chosen}, not supported by this form"))
        kind = Part("type", "Kind", kind="choice", options=kinds, default="s3", reloads=True)
        values = [_part(field, credentials) for field in of_kind.form] if of_kind else []
        lede = "Where the files are kept." if of_kind else "Edit its fields as JSON."
        return [
            Section("Sync spec", first),
            Section("Mappings", (
                Part("containerPath", "In the container", "A directory in one of the volumes"),
                Part("pattern", "Files", "Leave empty for all. *.pt matches at the top, **/*.log anywhere"),
                Part("sinkPath", "At the sink", "Appended to the prefix; ${tenantId} is the tenant"),
                Part("direction", "Direction", kind="choice", options=DIRECTIONS, default="bidirectional"),
                Part("mode", "Mode", kind="choice", options=MODES, default="sync"),
            ), path="mappings", blank=MAPPING, is_list=True, noun="Mapping"),
            Section("Sink", (kind, *values), lede, "sink"),
            Section("When", (
                Part("onClaim", "Restore on claim", kind="flag"),
                Part("onRelease", "Save on release", kind="flag"),
                Part("intervalMs", "Save while in use, every", "Leave empty for no periodic save. At least 5 s", "ms"),
                Part("quiesce", "Saves while in use", kind="choice", options=QUIESCE, default="freeze"),
                Part("allowManualTrigger", "Allow manual sync", kind="flag", default=True),
            ), path="policy"),
        ]  # fmt: skip

    return sections


def drop_other_kinds(value: dict[str, Any]) -> None:
    """Afterwards the sink has no values that only other kinds have, which were typed before the kind was chosen.

    The form does not show them, so nobody could take them out. What no kind has stays, and is refused.
    """
    sink = value.get("sink")
    kind = KINDS.get(str(get(value, "/sink/type")))
    if kind is None or not isinstance(sink, dict):
        return
    own = {field.path for field in kind.form}
    for name in {field.path for other in KINDS.values() for field in other.form} - own:
        sink.pop(name, None)


def start(pool_id: str) -> dict[str, Any]:
    """The initial value of a new sync spec."""
    return {
        "poolId": pool_id,
        "mappings": [{**MAPPING, "sinkPath": "state/"}],
        "sink": {"type": "s3", "bucket": "", "region": "", "prefix": "t/${tenantId}/"},
        "policy": {"onClaim": True, "onRelease": True, "intervalMs": 300000, "allowManualTrigger": True},
    }
