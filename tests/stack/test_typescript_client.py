"""The TypeScript client, built as it would be published, against the running product."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.any_database]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "typescript"
NODE = ROOT / ".venv" / "bin" / "node"


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What it printed. Fails with that, unless the exit code is 0."""
    environment = {**os.environ, **variables, "PATH": f"{NODE.parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built():
    """The package with its ``dist``, of the present docs/openapi.json; its types hold, also in the tests."""
    run(ROOT / "scripts" / "typescript-client.sh", cwd=ROOT)
    assert (PACKAGE / "dist" / "index.d.ts").is_file()
    return PACKAGE


@pytest.fixture(scope="module")
def pool(stack, s3):
    name = stack.make_pool(warm=2, maxSize=4, sink=s3.json("typescript/${tenantId}/"))
    yield name
    stack.drop_pool(name)


def test_its_own_tests_pass(built, stack, pool, tmp_path):
    variables = {"BOILERHOUSE_URL": stack.base, "BOILERHOUSE_API_KEY": stack.key, "BOILERHOUSE_POOL": pool}
    reports = ["--reporter=default", "--reporter=json", f"--outputFile={tmp_path / 'report.json'}"]
    run(NODE, built / "node_modules/vitest/vitest.mjs", "run", *reports, cwd=built, **variables)
    report = json.loads((tmp_path / "report.json").read_text())
    files = {Path(one["name"]).name for one in report["testResults"]}
    assert files == {path.name for path in (built / "test").glob("*.test.ts")}
    assert report["numPassedTests"] == report["numTotalTests"] > 0


def test_the_examples_of_the_readme_run(built, stack, pool, tmp_path):
    """One after the other, as they are written; only the address and the pool are the test's."""
    examples = re.findall(r"^```ts\n(.*?)^```$", (built / "README.md").read_text(), flags=re.M | re.S)
    assert examples
    program = "\n".join(examples).replace("http://127.0.0.1:8000", stack.base).replace('"notes"', f'"{pool}"')
    (tmp_path / "example.mts").write_text(program)
    (tmp_path / "node_modules" / "@boilerhouse").mkdir(parents=True)
    (tmp_path / "node_modules" / "@boilerhouse" / "client").symlink_to(built)
    (tmp_path / "node_modules" / "@types").symlink_to(built / "node_modules" / "@types")
    settings = {"extends": str(built / "tsconfig.json"), "include": ["example.mts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    run(NODE, built / "node_modules/typescript/bin/tsc", cwd=tmp_path)
    printed = run(NODE, "example.mts", cwd=tmp_path, BOILERHOUSE_API_KEY=stack.key)
    assert "42" in printed
