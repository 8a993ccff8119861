"""The documentation and the deployment files are correct: links resolve, and the things they name exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

from boilerhouse.operations.metrics import DatabaseCollector
from pools import instruments as of_pools
from syncing import instruments as of_sync
from tenants import instruments as of_tenants

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/**/*.md"),
    *ROOT.glob("clients/python/*.md"),
    *ROOT.glob("bench/results/*.md"),
]
DEPLOY = ROOT / "deploy"
FILES = 65536
"""What each of our processes may have open."""


def without_code(text: str) -> str:
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{page.name}: {target}"


def test_every_hazard_that_the_code_names_is_described():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    named = {
        anchor
        for path in tracked.split()
        for names in re.findall(r"hazards\.md((?:(?:, )?#[a-z]\d+)+)", (ROOT / path).read_text())
        for anchor in re.findall(r"\w+", names)
    }
    assert {"a10", "c1", "d5"} <= named
    assert named <= anchors(ROOT / "docs" / "hazards.md")


def test_every_page_is_reached_from_the_first():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            there = (page.parent / target).resolve()
            if there.suffix == ".md" and there.exists():
                todo.append(there)
    assert {*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md"} <= seen


def test_blocks_of_json_are_json():
    blocks = [
        (page, block) for page in PAGES for block in re.findall(r"```json\n(.*?)```", page.read_text(), flags=re.S)
    ]
    assert blocks
    for page, block in blocks:
        try:
            json.loads(block)
        except ValueError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: {error}\n{block}")


def test_every_test_that_the_security_model_names_exists():
    known = {
        name
        for path in ROOT.glob("tests/**/*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.M)
    }
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= known, named - known
    for promise in range(1, 15):
        (row,) = re.findall(rf"^\| P{promise} \|.*$", text, flags=re.M)
        assert re.search(r"`test_\w+`", row), row


def test_every_setting_is_documented():
    settings = (ROOT / "boilerhouse" / "settings.py").read_text()
    text = (ROOT / "docs" / "operations.md").read_text()
    known = set(re.findall(r'env\.\w+\(\s*"(\w+)"', settings))
    documented = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"`BOILERHOUSE_ALLOW_\w+`", text))
    assert known - documented <= {"BOILERHOUSE_DEBUG"}, known - documented


def test_every_command_of_ours_is_documented():
    ours = {
        name
        for name, app in get_commands().items()
        if str(app).split(".")[0] in ("boilerhouse", "pools", "syncing", "tenants")
    }
    text = (ROOT / "docs" / "operations.md").read_text()
    missing = {name for name in ours if not re.search(rf"`{name}\b", text)}
    assert not missing, missing


# Deployment files ---------------------------------------------------------------------------------------


def alerts() -> list[dict[str, object]]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return group["rules"]


def known_metrics() -> set[str]:
    found = {"up"}
    for module in (of_pools, of_sync, of_tenants, __import__("boilerhouse.telemetry.instruments", fromlist=["x"])):
        for one in vars(module).values():
            if hasattr(one, "describe"):
                for family in one.describe():
                    kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
                    found |= {family.name + kind for kind in kinds}
    return found


def test_alerts_and_dashboard_ask_for_metrics_that_exist(db, data_dir):
    known = known_metrics() | {family.name for family in DatabaseCollector().collect()}
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "boilerhouse.json").read_text())
    asked = [str(rule["expr"]) for rule in alerts()]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 40
    for expression in asked:
        named = set(re.findall(r"\bboilerhouse_\w+", expression))
        assert named or expression.startswith("up"), expression
        assert named <= known, f"{expression}: {named - known}"


def test_each_alert_is_in_the_runbook_and_the_runbook_has_no_other():
    text = (ROOT / "docs" / "runbook.md").read_text()
    names = {str(rule["alert"]) for rule in alerts()}
    assert set(re.findall(r"^### (Boilerhouse\w+)$", text, flags=re.M)) == names
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{str(rule['alert']).lower()}"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool", path=f"{ROOT}/.venv/bin:{os.environ['PATH']}")
    assert found, "scripts/bootstrap.sh test fetches it"
    directory = DEPLOY / "prometheus"
    return subprocess.run([found, *arguments], cwd=directory, capture_output=True, text=True, check=False)


def test_promtool_accepts_rules_and_configuration_and_their_tests_pass(tmp_path):
    directory = DEPLOY / "prometheus"
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    text = (directory / "prometheus.yml").read_text().replace("/run/secrets/metrics_token", "/dev/null")
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "alerts.yml").write_text((directory / "alerts.yml").read_text())
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stderr


def test_compose_keeps_the_same_path_rule_and_gives_each_process_the_least():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = compose["services"]
    for name in ("web", "worker", "controller"):
        service = services[name]
        for mount in service["volumes"]:
            outside, inside, *_ = mount.split(":")
            assert outside == inside or not outside.startswith("/"), mount
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
        assert service["environment"]["BOILERHOUSE_GATEWAY_PORT"] == 0, "nothing there starts the gateway"
        assert not any("docker.sock:" in mount for mount in service["volumes"])
    for name, kind in (("web", "web"), ("worker", "worker"), ("controller", "worker")):
        service = services[name]
        assert service["environment"]["DOCKER_HOST"] == f"unix:///run/boilerhouse-docker/{kind}/{kind}.sock"
        mounted = [one for one in service["volumes"] if "docker" in one]
        assert mounted == [f"docker-{kind}:/run/boilerhouse-docker/{kind}"], "H1: a process has its own socket alone"
    assert set(services["web"]["cap_add"]) - {"SYS_NICE"} < set(services["worker"]["cap_add"])
    ours = ("migrate", "web", "worker", "controller")
    assert {name for name, service in services.items() if "ulimits" in service} == set(ours)
    for name in ours:
        files = f"${{BOILERHOUSE_OPEN_FILES:-{FILES}}}"
        limits = services[name]["ulimits"]
        assert limits == {"nofile": {"soft": files, "hard": files}}, "N1: no other, for not every engine may raise them"
    assert not {"SYS_ADMIN", "SYS_PTRACE"} & set(services["web"]["cap_add"])
    for name in ("worker", "controller"):
        more = set(services[name]["cap_add"]) - set(services["web"]["cap_add"])
        assert more, f"H1: /proc leads the web process to the sockets of whoever has no right beyond its own: {name}"
    assert services["docker-proxy"]["entrypoint"][0] == "python", "H1: an init before it would not be closed"
    named = {
        volume.split(":")[0] for s in services.values() for volume in s.get("volumes", ()) if volume[0] not in "./"
    }
    assert named == set(compose["volumes"])
    for service in services.values():
        for other in service.get("depends_on", {}):
            assert other in services
    example = (DEPLOY / "compose.env.example").read_text()
    for name in re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()):
        assert f"{name}=" in example


def test_units_name_each_other_and_files_that_exist():
    directory = DEPLOY / "systemd"
    names = {path.name for path in directory.iterdir()}
    target = (directory / "boilerhouse.target").read_text()
    wanted = {word for line in re.findall(r"^Wants=(.*)$", target, flags=re.M) for word in line.split()}
    assert {re.sub(r"@\d", "@", one) for one in wanted} <= names
    for path in directory.glob("*.service"):
        text = path.read_text()
        assert "KillMode=mixed" in text
        assert f"LimitNOFILE={FILES}" in text, "N1: connections are files"
        assert "Environment=BOILERHOUSE_GATEWAY_PORT=0" in text, "its answers would name a gateway that nothing starts"
        (command,) = re.findall(r"manage\.py (\w+)", text)
        assert command in get_commands()
    for example in re.findall(r"^(\w+)=", (directory / "boilerhouse.env.example").read_text(), flags=re.M):
        assert example in (ROOT / "boilerhouse" / "settings.py").read_text()


def test_bootstrap_brings_the_programs_that_a_deployment_needs():
    """A small image of Ubuntu has no ``ip``, without which no container gets a network."""
    deployment = (ROOT / "docs" / "deployment.md").read_text()
    packages = set(re.search(r"apt-get install (docker\.io .*)", deployment)[1].split())  # type: ignore[index]
    of_every_purpose = (ROOT / "scripts" / "bootstrap.sh").read_text().partition('if [ "$purpose" = test ]')[0]
    needed = set(re.findall(r"^need (\S+)", of_every_purpose, re.MULTILINE))
    not_of_a_demo = {"postgresql", "nginx-light", "git", "openssl", "python3-venv"}
    assert packages - not_of_a_demo <= needed


def test_the_bench_starts():
    """A module of it imported models before Django was set up."""
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
