"""The bench's figures as a Markdown page: the contract's targets first, then every table, with bars for the eye."""
# ruff: noqa: RUF001, E501  the page's own lines and signs

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

BAR, HEIGHT, WIDTH = 18, 26, 760


def write(report: dict[str, Any], tables: str, results: Path) -> None:
    """``report.md`` and its pictures beside ``latest.json``."""
    lines = [
        "# What was measured",
        "",
        f"`make bench` at {report['at']}: {report['machine']['cores']} cores, kernel {report['machine']['kernel']}, Python"
        f" {report['machine']['python']}, Docker {report['machine']['engine']}, {report['database']}. Real server"
        " processes, engine and rclone on one machine, clients included. Groups may be of different runs:",
        "",
        *(f"- {group}: {at}" for group, at in sorted(report.get("measuredAt", {}).items())),
        "",
        "## Targets",
        "",
        "| what | target | measured | beside the bare thing | |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {what} | {target} | {said} | {bare} | {verdict} |"
            for what, target, said, bare, verdict in verdicts(report)
        ),
        "",
    ]
    if found := report.get("claims"):
        (results / "claims.svg").write_text(_bars(found))
        lines += ["![claims under load: p50, p95 and p99](claims.svg)", ""]
    lines += ["## All figures", "", "```", tables, "```", ""]
    (results / "report.md").write_text("\n".join(lines))


Verdict = tuple[str, str, str, str, str]


def verdicts(report: dict[str, Any]) -> Iterator[Verdict]:
    """Every line of the contract's section 5 that was measured."""

    def line(what: str, target: str, said: str, bare: str, is_met: bool) -> Verdict:
        return what, target, said, bare, "met" if is_met else "**not met**"

    if found := report.get("warmClaim"):
        claim, lone = found["claim"], found["bare"]
        yield line(
            "warm claim, first-time tenant, S3 pool, one client", "p50 ≤ 25 ms, p99 ≤ 100 ms",
            f"{claim['p50Ms']} / {claim['p99Ms']} ms", f"{claim['p50Ms'] / lone['p50Ms']:.1f} × inspect + file writes",
            claim["p50Ms"] <= 25 and claim["p99Ms"] <= 100,
        )  # fmt: skip
    claims = report.get("claims", {})
    for name, what, which, most in (
        ("tenAtOnce", "10 claims at once on 10 warm", "p50Ms", 80),
        ("twentyAtOnce", "20 claims at once on 10 warm", "p95Ms", 2500),
        ("fortyPerSecond", "40 claims/s for 4 s on 200 warm", "p99Ms", 150),
        ("halfRefillRate", "half the refill rate for 60 s, with releases", "p99Ms", 150),
        ("restored100KB", "warm claim with 10 files / 100 KB restored", "p50Ms", 250),
    ):
        if one := claims.get(name):
            yield line(what, f"{which[:3]} ≤ {most} ms", f"{one[which]} ms (n = {one['n']})", "", one[which] <= most)
    for row in report.get("transfers", []):
        if row["case"].startswith("10 MB"):
            is_met = row["saveMet"] and row["restoreMet"]
            said = f"save {row['saveMs']:.0f}, restore {row['restoreMs']:.0f} ms"
            bare = f"{row['saveRatio']:.2f} × and {row['restoreRatio']:.2f} × rclone"
            yield line(f"{row['case']}, {row['distance']}", "≤ 1.25 × rclone + 100 ms", said, bare, is_met)
    if (one := claims.get("release")) and (rows := [r for r in report.get("transfers", []) if r["distance"] == "near"]):
        bare_ms = one["bareStopAndRemoveMs"] + rows[0]["saveRcloneMs"]
        yield line(
            "release, 100 KB saved, container gone", "≤ 1.25 × (stop + rclone + rm) + 100 ms", f"p50 {one['p50Ms']} ms",
            f"{one['p50Ms'] / bare_ms:.2f} × {bare_ms:.0f} ms", one["p50Ms"] <= 1.25 * bare_ms + 100,
        )  # fmt: skip
    if found := report.get("refill"):
        share = found["share"]
        yield line("refill", "≥ 85 % of bare", f"{share:.0%}", f"bare {max(found['barePerSecond'])}/s", share >= 0.85)
    if found := report.get("events"):
        yield line("event to client, 200 sockets", "p95 ≤ 200 ms", f"{found['p95Ms']} ms", "", found["p95Ms"] <= 200)
    if found := report.get("crud"):
        for name, what, most, bare in (
            ("open", "CRUD, 30/s open loop while a pool refills", 50, "openEmptyRefill"),
            ("crud10", "CRUD, 10 saturating connections", 120, "empty10"),
        ):
            p99 = found[name]["p99Ms"]
            yield line(
                what, f"p99 ≤ {most} ms", f"{p99} ms", f"{p99 / found[bare]['p99Ms']:.1f} × an empty view", p99 <= most
            )


def _bars(found: dict[str, Any]) -> str:
    """p50, p95 and p99 of every scenario, on one logarithmic axis."""
    from math import log10

    from bench.claims import LABELS

    rows = [(LABELS[name], found[name]) for name in LABELS if name in found]
    most = max(one["p99Ms"] for _, one in rows)

    def scale(ms: float) -> float:
        return (WIDTH - 420) * max(0.0, log10(max(ms, 1)) / log10(max(most, 10)))

    height = HEIGHT * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, (label, one) in enumerate(rows):
        y = 10 + number * HEIGHT
        parts.append(f'<text x="6" y="{y + 13}" fill="#222">{label.replace("&", "&amp;").replace("<", "&lt;")}</text>')
        for key, color in (("p99Ms", "#cfd8e3"), ("p95Ms", "#8fb0d9"), ("p50Ms", "#2f6fc4")):
            parts.append(f'<rect x="330" y="{y}" width="{scale(one[key]):.0f}" height="{BAR}" fill="{color}"/>')
        parts.append(
            f'<text x="{336 + scale(one["p99Ms"]):.0f}" y="{y + 13}" fill="#222">{one["p50Ms"]:.0f} · {one["p95Ms"]:.0f} ·'
            f" {one['p99Ms']:.0f} ms</text>"
        )
    return "\n".join([*parts, "</svg>", ""])
