"""The versions of a workload as its page shows them: who made each, when, what it changed, and what runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from boilerhouse.dashboard import described, schema_words
from boilerhouse.dashboard.documents import Sections
from pools.api.serializers import render_spec
from pools.models import Container, Workload, WorkloadVersion

SHOWN = 20
NAMED_CHANGES = 3
SCHEMA = "Config schema"
TITLES = (
    ("Image and process", ("Workload", "Process", "User", "User id as security.runAsUser", "Environment", "Labels")),
    ("Resources", ("Resources", "Directories in memory", "Process limits", "Devices", "GPUs")),
    ("Health and hooks", ("Health check", "After a claim", "Before a release", "Before a save while in use")),
    ("Volumes", ("State volume", "Secrets volume", "Communication volume", "More volumes", "Seed")),
    ("Network", ("Ports", "Host names", "Security")),
    (SCHEMA, (SCHEMA,)),
)
"""The groups of a workload's facts, and the sections of its form that each has."""


@dataclass(frozen=True, slots=True)
class ShownVersion:
    version: WorkloadVersion
    running: int
    changes: str
    """What it changed of the version before, in a few words."""

    @property
    def who(self) -> str:
        """Who made it; empty if that was not recorded."""
        return self.version.created_by.removeprefix("user ")

    @property
    def digest(self) -> str:
        return self.version.manifest_digest or self.version.image_digest


def facts(value: dict[str, Any], sections: Sections) -> list[described.Group]:
    """The workload in words; of the config schema, the fields of a config."""
    groups, schema = described.groups(value, sections, TITLES), value.get("configSchema")
    return [
        described.Group(group.title, schema_words.rows(schema)) if group.title == SCHEMA and schema else group
        for group in groups
    ]


def of(workload: Workload, sections: Sections) -> list[ShownVersion]:
    """The newest versions, newest first."""
    versions = list(workload.versions.order_by("-number")[: SHOWN + 1])
    counted = Container.objects.filter(version__workload=workload).values_list("version_id").annotate(n=Count("pk"))
    running = dict(counted)
    older: Sequence[WorkloadVersion | None] = [*versions[1:], None]
    return [
        ShownVersion(version, running.get(version.pk, 0), _changes(before, version, sections))
        for version, before in list(zip(versions, older, strict=True))[:SHOWN]
    ]


def changes(old: WorkloadVersion, new: WorkloadVersion, sections: Sections) -> list[described.Difference]:
    """The facts in which the versions differ, and the image if only that does."""
    rows = described.differences(fields_of(old), fields_of(new), sections)
    before, after = (version.manifest_digest or version.image_digest for version in (old, new))
    if old.spec.image == new.spec.image and before and after and before != after:
        rows.append(described.Difference("Image of the tag", before, after))
    return rows


def fields_of(version: WorkloadVersion) -> dict[str, Any]:
    """The version as the workload's form has it."""
    return render_spec(version.spec)


def _changes(before: WorkloadVersion | None, version: WorkloadVersion, sections: Sections) -> str:
    if before is None:
        return "First version" if version.number == 1 else ""
    labels = [difference.label for difference in changes(before, version, sections)]
    more = len(labels) - NAMED_CHANGES
    return ", ".join(labels[:NAMED_CHANGES]) + (f" and {more} more" if more > 0 else "") or "Nothing that is shown"
