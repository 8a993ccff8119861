"""The promises in figures: what was measured of each, beside the bare thing, and whether it is kept."""
# ruff: noqa: RUF001, E501  the page's own signs and lines

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import figures
from bench.files import PIPE_SHARE


@dataclass(frozen=True)
class Line:
    key: str
    what: str
    target: str
    figure: str
    bare: str
    over: float
    """The figure as a share of what is allowed: at most 1 is met."""

    @property
    def is_met(self) -> bool:
        return self.over <= 1

    @property
    def verdict(self) -> str:
        return "met" if self.is_met else f"**missed by {self.over - 1:.0%}**"


Limits = dict[str, float]
AT_MOST: list[tuple[str, tuple[str, ...], str, Limits | dict[str, Limits]]] = [
    (
        "alone", ("alone", "afterThird"), "warm claim at rest, first-time tenant, S3 pool",
        {"SQLite": {"p50Ms": 10, "p99Ms": 20}, "PostgreSQL": {"p50Ms": 13, "p99Ms": 25}},
    ),
    ("firstAnswer", ("alone", "firstAnswer"), "… to the container's first HTTP answer", {"p50Ms": 12, "p99Ms": 25}),
    ("firstCommand", ("alone", "firstCommand"), "… with its first command in the answer", {"p50Ms": 15, "p99Ms": 30}),
    ("command", ("commands", "command"), "a command in a held container", {"p50Ms": 5}),
    ("firstByte", ("commands", "firstByte"), "first byte of a command's stream", {"p50Ms": 6}),
    ("keyEcho", ("commands", "keyEcho"), "a key and its echo in a terminal", {"p50Ms": 3}),
    ("file1KB", ("files", "1KB"), "a file of 1 KB written and read", {"p50Ms": 8}),
    ("tenAtOnce", ("burst", "tenAtOnce"), "10 claims at once on 10 warm", {"p50Ms": 60}),
    ("fiftyAtOnce", ("burst", "fiftyAtOnce"), "50 claims at once on 50 warm", {"p95Ms": 350}),
    ("twentyAtOnce", ("burst", "twentyAtOnce"), "20 claims at once on 10 warm, none refused", {"p95Ms": 2200}),
    ("fortyPerSecond", ("scale", "fortyPerSecond"), "40 claims/s for 4 s on 200 warm", {"p99Ms": 100}),
    ("half", ("half",), "half the refill rate for 60 s, with releases", {"p99Ms": 100}),
    ("restored", ("state", "restored100KB"), "warm claim with 10 files / 100 KB restored", {"p50Ms": 120}),
]  # fmt: skip
"""What each may take: the same on each database, or by database."""
AGENT_KB = 150
BY_HAND = {"seconds": 8, "on": "2026-11-26"}
"""From the first command of "In five minutes" in docs/workloads.md to its last answer, entered block by block as they
stand there, image included, with `up` running. Done once, by an agent that pasted the blocks: a person reads and types
for longer. The bench does not repeat it."""
WHICH = {"p50Ms": "p50", "p95Ms": "p95", "p99Ms": "p99"}


def lines(groups: dict[str, Any], database: str) -> Iterator[Line]:
    """Of the groups that were measured on ``database``; in the contract's order."""
    for key, path, what, limits in AT_MOST:
        one = groups
        for name in path:
            one = one.get(name, {})
        if one:
            yield _times(key, what, one, limits.get(database, limits))
    yield from _long_files(groups.get("files", {}))
    yield from _agents(groups.get("scale", {}).get("agents", {}))
    yield from _transfers(groups.get("transfers", []))
    yield from _with_state(groups.get("state", {}))
    if found := groups.get("refill"):
        share = found["share"]
        bare = f"{max(found['barePerSecond'])}/s bare"
        yield Line(
            "refill",
            f"refill of {found['count']}",
            f"≥ {found['targetShare']:.0%} of bare",
            f"{share:.0%}",
            bare,
            found["targetShare"] / share,
        )
    if found := groups.get("events"):
        yield _times("events", "event to client, 200 sockets, from commit", found, {"p95Ms": 200})
    if found := groups.get("crud"):
        if "openRefill" in found:
            what = "CRUD, 30/s open loop while a pool refills"
            yield _times("crudOpen", what, found["openRefill"], {"p99Ms": 40})
        yield _times("crud10", "CRUD, 10 saturating connections", found["saturated10"], {"p99Ms": 100})
    if found := groups.get("pages"):
        view, most = found["server"]["an empty view"]["p95Ms"], found["targetsMs"]
        seen = found["eventToBrowser"]["p95Ms"]
        bare = f"{seen / view:.0f} × an empty view's request"
        yield Line("eventToBrowser", "event to browser, from commit", "p95 ≤ 100 ms", f"{seen} ms", bare, seen / 100)
        loads = dict(found["firstLoad"])
        empty = loads.pop("an empty view")["p95Ms"]
        time, slow = max((one["p95Ms"], name) for name, one in loads.items())
        what, share = f"page: first load interactive (slowest: {slow})", time / most["firstLoad"]
        bare = f"{time / empty:.1f} × {empty} ms (an empty view)"
        yield Line("firstLoad", what, f"p95 ≤ {most['firstLoad']} ms", f"{time} ms", bare, share)
        by_hand = f"{BY_HAND['seconds']} s (once, on {BY_HAND['on']}, blocks pasted)"
        share = float(BY_HAND["seconds"]) / 300
        yield Line("workload", "new workload, from the guide", "< 5 min, by hand, once", by_hand, "", share)
        time = found["navigation"]["p95Ms"]
        bare, share = f"{time / empty:.1f} × {empty} ms (an empty view)", time / most["navigation"]
        yield Line("navigation", "page: navigation", f"p95 ≤ {most['navigation']} ms", f"{time} ms", bare, share)

    if found := groups.get("weight"):
        yield from _weights(found)


def _weights(found: dict[str, Any]) -> Iterator[Line]:
    """The worst page of each figure."""
    for key, what, unit in (
        ("coldKb", "page: cold, on the wire", " kB"),
        ("liveKbPerS", f"page: open, {found['tenants']} tenants saved every {found['intervalS']} s", " kB/s"),
        ("liveShift", "page: cumulative layout shift, loaded and open", ""),
    ):
        figure, name = max((one[key], name) for name, one in found["pages"].items())
        most = found["targets"]["shift" if key == "liveShift" else key]
        yield Line(key, f"{what} (worst: {name})", f"≤ {most}{unit}", f"{figure}{unit}", "", figure / most)


def _times(key: str, what: str, one: dict[str, Any], limits: Limits) -> Line:
    bare = ""
    if "bare" in one:
        ratios = [f"{one[which] / max(0.1, one['bare'][which]):.1f}" for which in limits]
        bare = f"{' / '.join(ratios)} × " + " / ".join(f"{one['bare'][which]}" for which in limits) + " ms"
    figure = " / ".join(f"{one[which]}" for which in limits) + f" ms (n = {one['n']})"
    spread = [one["spread"][which] for which in limits]
    if one["rounds"] > 1:
        figure += "; rounds " + ", ".join(f"{low}–{high}" for low, high in spread)
    target = ", ".join(f"{WHICH[which]} ≤ {most} ms" for which, most in limits.items())
    return Line(key, what, target, figure, bare, max(one[which] / most for which, most in limits.items()))


def _long_files(found: dict[str, Any]) -> Iterator[Line]:
    for key, what in (("up100MB", "a file of 100 MB written"), ("down100MB", "a file of 100 MB read")):
        if one := found.get(key):
            yield Line(
                key, what, f"≥ {PIPE_SHARE:.0%} of dd through a pipe", f"{one['p50Ms']} ms (n = {one['n']})",
                f"{one['ofPipe']:.0%} of {one['pipe']['p50Ms']} ms", PIPE_SHARE / max(0.01, one["ofPipe"]),
            )  # fmt: skip


def _agents(found: dict[str, Any]) -> Iterator[Line]:
    if found:
        what = f"memory of a guest agent (PSS, mean of {found['containers']})"
        yield Line("agents", what, f"≤ {AGENT_KB} KB", f"{found['pssKb']} KB", "", found["pssKb"] / AGENT_KB)


def _transfers(rows: list[dict[str, Any]]) -> Iterator[Line]:
    for row in rows:
        if not row["case"].startswith("10 MB"):
            continue
        over = max(row[f"{verb}Ms"] / figures.TRANSFER.of(row[f"{verb}RcloneMs"]) for verb in ("save", "restore"))
        yield Line(
            f"transfer {row['case']} {row['distance']}", f"{row['case']}, {row['distance']}: save / restore",
            "≤ 1.15 × rclone + 80 ms", f"{row['saveMs']:.0f} / {row['restoreMs']:.0f} ms",
            f"{row['saveRatio']:.2f} / {row['restoreRatio']:.2f} × {row['saveRcloneMs']:.0f} / {row['restoreRcloneMs']:.0f} ms",
            over,
        )  # fmt: skip


def _with_state(found: dict[str, Any]) -> Iterator[Line]:
    gone, came = "(stop + rclone + rm)", "(rclone + inspect + files)"
    for key, what, bare, margin in (
        ("release100KB", "release, 100 KB saved, container gone", gone, figures.RELEASE),
        ("release10MB", "release, 10 MB in 1 file saved, container gone", gone, figures.RELEASE),
        ("release1000", "release, 10 MB in 1,000 files saved, container gone", gone, figures.RELEASE),
        ("restored10MB", "warm claim, 10 MB in 1 file restored", came, figures.TRANSFER),
        ("restored1000", "warm claim, 10 MB in 1,000 files restored", came, figures.TRANSFER),
    ):
        if one := found.get(key):
            yield Line(
                key, what, f"p50 ≤ {margin.factor} × {bare} + {margin.ms:.0f} ms", f"{one['p50Ms']} ms (n = {one['n']})",
                f"{one['ratioP50']:.2f} × {one['bare']['p50Ms']} ms",
                one["p50Ms"] / margin.of(one["bare"]["p50Ms"]),
            )  # fmt: skip
