"""Which module may import which: what the contracts in pyproject.toml name is all that there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("boilerhouse", "pools", "syncing", "tenants") for path in (ROOT / name).rglob("*.py")]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_every_module_of_rest_views_is_closed_to_pages_and_commands():
    """1.8, B.5: HTML and commands depended on REST views, for finders that belong to what is found."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [contract] = [one for one in contracts if one["name"] == "No page or command imports a REST view"]
    views = {
        _module(path) for path in SOURCES if re.search(r"^class \w+\((?:Api|Waiting)View\)", path.read_text(), re.M)
    }
    own = {"boilerhouse.dashboard.stats", "boilerhouse.dashboard.metrics", "boilerhouse.dashboard.health"}
    own.add("tenants.api.waiting")  # a class for views
    assert set(contract["forbidden_modules"]) == views - own
    commands = {".".join(_module(path).split(".")[:-2]) for path in SOURCES if path.parent.name == "commands"}
    assert commands <= set(contract["source_modules"])
