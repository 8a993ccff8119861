"""The bench's figures as tables on the terminal, and as a Markdown page with plots: the contract's targets first."""
# ruff: noqa: RUF001, E501  the page's own lines and signs

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import log10
from pathlib import Path
from typing import Any

from bench import fan_out, pages, periodic, rest, transfers, weight
from bench import tables as growth
from bench.targets import Line, lines

WHY = {
    "alone": "A claim in a row is half as long: after a quiet of 300 ms its code and data have left the processor's caches, and the bare claim beside it takes twice as long too. Thirteen statements, two requests to the sink and one to the engine are what is left to take out (docs/performance.md).",
    "firstAnswer": "As for the claim at rest.",
    "firstCommand": "As for the claim at rest; the command itself is 3 to 5 ms of it.",
    "tenAtOnce": "A claim is 9 to 11 ms of the web process's processor, and on PostgreSQL it waits 3 ms more for the database, two of whose answers are a commit on disk. Ten have their median at five and a half of them (ADR 22), and other rounds of the same run were faster. A second web process serves them on the other processor.",
    "twentyAtOnce": "Ten of the twenty wait for containers that are started for them, four at a time; that is the engine's rate, and both processors are busy with it.",
    "transfer 10 MB in 1,000 files near": "The census before, the listing afterwards (a thousand names), and the listing as an object of its own. Writing a thousand files differs from minute to minute on this disk: see cp.",
    "transfer 10 MB in 1 file 30 ms": "A save reads the marker, opens it, lists and closes it: four round trips of 30 ms beside rclone's own, 120 ms of the 100 ms and a quarter that are allowed.",
    "restored1000": "A claim that restores goes through a worker; a thousand files get their modes and move in besides. Writing a thousand files differs from minute to minute on this disk: see cp.",
    "command": "6 ms of the web process's processor are the request itself (the key, the claim, the audit entry), 1.5 ms the event loop; the agent takes 1 to 2 ms.",
    "firstByte": "Two requests, each on a connection of its own, as for a command.",
    "file1KB": "Two requests, each as for a command.",
    "up100MB": "Each 256 KB is copied from the client's socket into one piece and on to the agent's, in the web process's one event loop, while the client needs the other processor.",
    "down100MB": "Each 256 KB is copied three times in the web process's one event loop, while the client needs the other processor.",
    "firstLoad": "The 95th percentile of eight is the slowest; Chromium's own share is the empty view beside it, on the same two processors.",
}
"""What is known of a line when it is missed; one that is missed and not here says so."""
BAR, ROW, WIDTH = 18, 26, 780
COLORS = (("p99Ms", "#cfd8e3"), ("p95Ms", "#8fb0d9"), ("p50Ms", "#2f6fc4"))
LABELS = {
    ("scale", "claim"): "warm claim, one client",
    ("alone", "inARow"): "claim, one after the other",
    ("alone", "afterThird"): "claim after 300 ms of quiet",
    ("alone", "afterSecond"): "claim after 1 s of quiet",
    ("alone", "firstAnswer"): "claim after 300 ms, to the first HTTP answer",
    ("alone", "firstCommand"): "claim after 300 ms with its first command",
    ("scale", "fortyPerSecond"): "40 claims/s for 4 s on 200 warm",
    ("half",): "half the refill rate for 60 s, with releases",
    ("refill", "claims"): "warm claims while another pool refills",
    ("burst", "tenAtOnce"): "10 claims at once on 10 warm",
    ("burst", "fiftyAtOnce"): "50 claims at once on 50 warm",
    ("burst", "twentyAtOnce"): "20 claims at once on 10 warm",
    ("burst", "hundredAtOnce"): "100 claims at once on 20 warm (at most 40)",
    ("state", "firstAnswer"): "claim to the container's first HTTP answer",
    ("state", "restored100KB"): "claim, 100 KB in 10 files restored",
    ("state", "restored10MB"): "claim, 10 MB in 1 file restored",
    ("state", "restored1000"): "claim, 10 MB in 1,000 files restored",
    ("state", "release100KB"): "release, 100 KB saved, container gone",
    ("state", "release10MB"): "release, 10 MB in 1 file saved, container gone",
    ("state", "release1000"): "release, 10 MB in 1,000 files saved",
    ("commands", "command"): "a command in a held container",
    ("commands", "firstByte"): "start a command, first byte of its stream",
    ("commands", "keyEcho"): "a key and its echo in a terminal",
    ("commands", "fourAtOnce"): "4 commands at once in one container",
    ("files", "1KB"): "a file of 1 KB written and read",
    ("files", "1MB"): "a file of 1 MB written and read",
    ("files", "up100MB"): "a file of 100 MB written",
    ("files", "down100MB"): "a file of 100 MB read",
    ("crud", "saturated10"): "CRUD, 10 saturating connections",
    ("crud", "openQuiet"): "CRUD, 30/s open loop",
    ("crud", "openRefill"): "CRUD, 30/s open loop while a pool refills",
    ("events",): "event to client, 200 sockets, 50/s",
}


def write(found: dict[str, Any], results: Path) -> str:
    """``report.md`` and its pictures; returns the tables for the terminal."""
    shown = tables(found)
    machine = found["machine"]
    page = [
        "# What was measured",
        "",
        f"`make bench`, {found['minutes']} minutes, until {found['at']}, at commit {machine['commit']}. {machine['cores']} cores"
        f" ({machine['processor']}), {machine['memoryGb']} GB, kernel {machine['kernel']}, Python {machine['python']}, "
        + ", ".join(f"{one['database']} with Docker {one['engine']}" for one in found["databases"].values())
        + ". Real server processes, engine, rclone and databases on this one machine, the clients too, at no priority.",
        "",
        "Times of requests count from when they were due. p50, p95 and p99 are of all rounds together; “rounds” are the lowest and the highest"
        " of the single ones. Warm-up is apart. The bare thing was measured in the same run: inspect and file writes for claims, docker stop"
        " and rm and rclone with the same flags for releases, create, start and probe for refills, an empty Django view, a bare WebSocket server.",
        "",
    ]
    if not found["isWhole"]:
        page += ["Groups are of different runs:", ""]
        for name, one in found["databases"].items():
            page.append(f"- {name}: " + ", ".join(_when(one, group) for group in one["measuredAt"]))
        page.append("")
    page += ["## Targets", ""]
    missed: list[str] = []
    for name, one in found["databases"].items():
        page += [
            f"### {name}",
            "",
            "| what | target | measured | beside the bare thing | |",
            "| --- | --- | --- | --- | --- |",
        ]
        for line in lines(one["groups"], name):
            page.append(f"| {line.what} | {line.target} | {line.figure} | {line.bare} | {line.verdict} |")
            if not line.is_met:
                missed.append(
                    f"- {name}, {line.what}: by {line.over - 1:.0%}. {WHY.get(line.key, 'Not explained yet.')}"
                )
        page.append("")
    page += ["### What is missed, and why", "", *(missed or ["Nothing."]), ""]
    page += ["What the remaining time of each hot path is spent on: [performance](../../docs/performance.md).", ""]
    for name, one in found["databases"].items():
        picture = f"times-{name.lower()}.svg"
        (results / picture).write_text(_bars(one["groups"]))
        page += [f"## Times on {name}", "", f"![p50, p95 and p99 on a logarithmic axis]({picture})", ""]
    if pictures := _growth(found, results):
        page += ["## Growth", "", *pictures, ""]
    page += ["## All figures", "", "```", shown, "```", ""]
    (results / "report.md").write_text("\n".join(page))
    return shown


def _when(one: dict[str, Any], group: str) -> str:
    load = one.get("loadBefore", {}).get(group)
    others = "" if load is None else f" (load average before it: {load})"
    return f"{group} {one['measuredAt'][group]}{others}"


def tables(found: dict[str, Any]) -> str:
    """Every figure, database by database, and the verdicts."""
    rows: list[str] = []
    for name, one in found["databases"].items():
        rows += [f"== {name} ({one['database']}, Docker {one['engine']}) ==", ""]
        rows += _times(one["groups"])
        rows += _others(one)
        verdicts: list[Line] = list(lines(one["groups"], name))
        rows += [
            f"{'target':<66}{'':>6}",
            *(f"  {line.what:<60}{line.target:<52}{line.verdict.strip('*')}" for line in verdicts),
            "",
        ]
        rows.append(f"{sum(line.is_met for line in verdicts)} of {len(verdicts)} targets met on {name}")
        rows.append("")
    return "\n".join(rows)


def _all(groups: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, label in LABELS.items():
        one = groups
        for name in path:
            one = one.get(name, {})
        if one:
            yield label, one


def _times(groups: dict[str, Any]) -> list[str]:
    rows = [
        f"{'milliseconds':<50}{'n':>7}{'p50':>10}{'p95':>10}{'p99':>10}{'rounds of p50':>18}{'bare p50':>10}{'bare p99':>10}{'ratio':>8}"
    ]
    for label, one in _all(groups):
        low, high = one["spread"]["p50Ms"]
        spread = f"{low}–{high}" if one["rounds"] > 1 else ""
        bare = one.get("bare")
        beside = f"{bare['p50Ms']:>10}{bare['p99Ms']:>10}{one['ratioP50']:>8.1f}" if bare else ""
        rows.append(
            f"{label:<50}{one['n']:>7}{one['p50Ms']:>10}{one['p95Ms']:>10}{one['p99Ms']:>10}{spread:>18}{beside}".rstrip()
        )
    return [*rows, ""]


def _others(one: dict[str, Any]) -> list[str]:
    groups, rows = one["groups"], list[str]()
    if found := groups.get("refill"):
        rows += [
            f"refill of {found['count']}, containers per second        {found['perSecond']}",
            f"bare create + start + probe, {found['parallel']} at once     {found['barePerSecond']}",
            f"share of bare (median of rounds)          {found['share']:.0%}",
            "",
        ]
    if phases := one.get("claimPhasesMs"):
        rows += ["phases of a warm claim, mean: " + ", ".join(f"{name} {ms} ms" for name, ms in phases.items()), ""]
    if found := groups.get("scale", {}).get("claimAt"):
        rows += [
            "warm claim, p50 with containers in the pool: "
            + ", ".join(f"{size}: {at['p50Ms']} ms" for size, at in found.items()),
            "",
        ]
    if "rest" in groups:
        rows += [*rest.table(groups["rest"]), ""]
    if "idle" in groups.get("scale", {}):
        idle = groups["scale"]["idle"]
        compared = idle["reconcile"]
        rows += [
            *rest.table(idle),
            f"  comparing them with the engine: p50 {compared['p50Ms']} ms; the engine's list alone {compared['bare']['p50Ms']} ms",
            "",
        ]
    for group, table in (
        ("periodic", periodic.table), ("transfers", transfers.table), ("events", fan_out.table),
        ("pages", pages.table), ("weight", weight.table), ("tables", growth.table), ("growth", pages.growth_table),
    ):  # fmt: skip
        if group in groups:
            rows += [*table(groups[group]), ""]
    return rows


# Pictures ---------------------------------------------------------------------------------------------


def _svg(height: int, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>', *parts, "</svg>", ""])


def _bars(groups: dict[str, Any]) -> str:
    """p50, p95 and p99 of every scenario and, as a line, the bare thing's p50, on one logarithmic axis."""
    rows = list(_all(groups))
    most = max((one["p99Ms"] for _, one in rows), default=10)
    left, room = 300, WIDTH - 300 - 150

    def at(ms: float) -> float:
        return room * max(0.0, log10(max(ms, 1)) / log10(max(most, 10)))

    parts = []
    for decade in (1, 10, 100, 1000, 10_000, 100_000):
        if decade <= most:
            x = left + at(decade)
            parts.append(f'<line x1="{x:.0f}" y1="6" x2="{x:.0f}" y2="{ROW * len(rows) + 8}" stroke="#e3e7ec"/>')
            parts.append(
                f'<text x="{x:.0f}" y="{ROW * len(rows) + 22}" fill="#667" text-anchor="middle">{decade:,} ms</text>'
            )
    for number, (label, one) in enumerate(rows):
        y = 10 + number * ROW
        parts.append(f'<text x="6" y="{y + 13}" fill="#222">{escape(label)}</text>')
        for key, color in COLORS:
            parts.append(f'<rect x="{left}" y="{y}" width="{at(one[key]):.0f}" height="{BAR}" fill="{color}"/>')
        if bare := one.get("bare"):
            x = left + at(bare["p50Ms"])
            parts.append(
                f'<line x1="{x:.0f}" y1="{y - 2}" x2="{x:.0f}" y2="{y + BAR + 2}" stroke="#c2410c" stroke-width="2"/>'
            )
        words = f"{one['p50Ms']:.0f} · {one['p95Ms']:.0f} · {one['p99Ms']:.0f} ms"
        parts.append(f'<text x="{left + 6 + at(one["p99Ms"]):.0f}" y="{y + 13}" fill="#222">{words}</text>')
    y = ROW * len(rows) + 40
    parts.append(f'<text x="{left}" y="{y}" fill="#667">p50 · p95 · p99; the line: the bare thing, p50</text>')
    return _svg(y + 12, parts)


def _growth(found: dict[str, Any], results: Path) -> list[str]:
    """One picture per database: hot paths against the rows in the tables. Flat is what it should be."""
    shown = []
    for name, one in found["databases"].items():
        measured = one["groups"].get("tables")
        if not measured:
            continue
        picture = f"growth-{name.lower()}.svg"
        (results / picture).write_text(_lines(measured))
        shown.append(f"![{name}: p50 with ten thousand to a million events and runs]({picture})")
    return shown


def _lines(measured: dict[str, Any]) -> str:
    sizes = list(measured)
    names = [name for name in measured[sizes[0]] if isinstance(measured[sizes[0]][name], dict)]
    most = max(measured[size][name]["p50Ms"] for size in sizes for name in names)
    left, top, tall, wide = 60, 16, 300, 420
    colors = [
        "#2f6fc4",
        "#c2410c",
        "#15803d",
        "#7c3aed",
        "#0e7490",
        "#eab308",
        "#be185d",
        "#475569",
        "#65a30d",
        "#1d4ed8",
    ]

    def x(index: int) -> float:
        return left + wide * index / max(1, len(sizes) - 1)

    def y(ms: float) -> float:
        return top + tall * (1 - log10(max(ms, 1)) / log10(max(most, 10)))

    parts = []
    for decade in (1, 10, 100, 1000):
        if decade <= most * 1.1:
            parts.append(
                f'<line x1="{left}" y1="{y(decade):.0f}" x2="{left + wide}" y2="{y(decade):.0f}" stroke="#e3e7ec"/>'
            )
            parts.append(
                f'<text x="{left - 6}" y="{y(decade) + 4:.0f}" text-anchor="end" fill="#667">{decade} ms</text>'
            )
    for index, size in enumerate(sizes):
        parts.append(
            f'<text x="{x(index):.0f}" y="{top + tall + 18}" text-anchor="middle" fill="#667">{int(size):,} rows</text>'
        )
    for number, name in enumerate(names):
        color = colors[number % len(colors)]
        points = " ".join(f"{x(index):.0f},{y(measured[size][name]['p50Ms']):.0f}" for index, size in enumerate(sizes))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        words = f"{escape(name)}: " + " · ".join(f"{measured[size][name]['p50Ms']:.0f}" for size in sizes) + " ms"
        parts.append(f'<rect x="{left + wide + 40}" y="{top + number * 22}" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{left + wide + 58}" y="{top + 11 + number * 22}" fill="#222">{words}</text>')
    return _svg(top + tall + 32, parts)
