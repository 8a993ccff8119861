"""The examples as their guides describe them: built, claimed, used, released, claimed again with their state."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from playwright.sync_api import Browser, Response, expect
from websockets.sync.client import connect

from tests.stack.conftest import ROOT, Stack, eventually

pytestmark = [
    pytest.mark.long,  # a Debian, and images of up to a gigabyte, are made from packages: some ten minutes
    pytest.mark.any_database,
]
EXAMPLES = ROOT / "examples"
MB = 1 << 20
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def example(stack: Stack, sink_server: Any) -> Iterator[Callable[[str], str]]:
    """Build an example and create its documents through the API; they are removed after the test."""
    made: list[str] = []

    def register(name: str) -> str:
        built = subprocess.run([EXAMPLES / "build.sh", name], capture_output=True, text=True, timeout=1800, check=False)
        assert built.returncode == 0, built.stderr[-4000:]
        workload, pool, spec = (
            json.loads((EXAMPLES / name / f"{kind}.json").read_text()) for kind in ("workload", "pool", "sync-spec")
        )
        mine = f"{name}-{uuid.uuid4().hex[:6]}"  # two tests may use one example
        stack.ok("POST", "workloads", {**workload, "id": mine}, 201)
        stack.ok("POST", "pools", {**pool, "id": mine, "workloadId": mine}, 201)
        made.append(mine)
        sink = sink_server.json(spec["sink"]["prefix"])
        stack.ok("POST", "sync-specs", {**spec, "id": mine, "poolId": mine, "sink": sink}, 201)
        stack.wait_warm(mine, 1, 300)
        return mine

    yield register
    for pool in made:
        stack.drop_pool(pool)


def run(stack: Stack, claimed: dict[str, Any], script: str) -> str:
    body = {"command": ["bash", "-c", script], "timeoutMs": 60_000}
    done = stack.ok("POST", f"containers/{claimed['containerId']}/exec", body)
    assert done["exitCode"] == 0, done
    return str(done["stdout"])


def uid(stack: Stack, claimed: dict[str, Any]) -> int:
    """The uid of the container, which is one of its own."""
    found = int(run(stack, claimed, "id -u"))
    assert 200_000 <= found <= 1_200_001
    return found


def memory(stack: Stack, claimed: dict[str, Any], path: str) -> int:
    """Bytes of the tmpfs at a path."""
    kind, size = run(stack, claimed, f"df -B1 --output=fstype,size {path} | tail -1").split()
    assert kind == "tmpfs"
    return int(size)


def person(stack: Stack, claimed: dict[str, Any]) -> str:
    """Name, group's name and home, as the container's /etc/passwd and environment have them; its uid is its own."""
    uid(stack, claimed)
    told = run(
        stack,
        claimed,
        'echo $(id -un) $(id -gn) "$HOME"; getent passwd $(id -u) | cut -d: -f6; stat -c %u "$HOME"; id -u',
    )
    names, home, owner, number = told.splitlines()
    assert names.endswith(f" {home}")
    assert owner == number
    return names


def address(claimed: dict[str, Any]) -> str:
    return str(claimed["endpoints"][0]["url"])


def test_nginx_serves_the_tenants_files_and_the_same_ones_after_its_return(stack, example):
    """nginx without capabilities, under the pool's uid, its root read-only."""
    pool = example("nginx")
    claimed = stack.claim("ina", pool)
    run(stack, claimed, "cd /srv/site; echo '<h1>Ina</h1>' > index.html; mkdir a; echo deep > a/b.txt")
    assert requests.get(address(claimed), timeout=10).text == "<h1>Ina</h1>\n"
    stack.release("ina")

    again = stack.claim("ina", pool)
    assert again["containerId"] != claimed["containerId"]
    answer = requests.get(f"{address(again)}/a/b.txt", timeout=10)
    assert (answer.status_code, answer.text, answer.headers["Server"]) == (200, "deep\n", "nginx")
    assert "GET /a/b.txt" in stack.call("GET", f"containers/{again['containerId']}/logs").text
    own = uid(stack, again)
    assert run(stack, again, "id -G; stat -c '%u:%g %a' /etc/nginx/nginx.conf").split() == ["0", "0:0", "660"]
    assert run(stack, again, "stat -c %u:%g /srv/site/a/b.txt /var/lib/nginx/body").split() == [f"{own}:0"] * 2
    assert memory(stack, again, "/var/lib/nginx") == 24 * MB
    assert "Read-only file system" in run(stack, again, "touch /etc/nginx/x 2>&1 || true")


def query(claimed: dict[str, Any], password: str, statement: str) -> list[tuple[Any, ...]]:
    endpoint = claimed["endpoints"][0]
    place = {"host": endpoint["host"], "port": endpoint["port"], "dbname": "postgres", "user": "postgres"}
    with psycopg.connect(**place, password=password, connect_timeout=10) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_postgresql_ends_cleanly_and_has_all_rows_after_its_return(stack, example):
    """Initdb at the first claim, a server of the tenant's own, the password of the claim."""
    pool = example("postgresql")
    first, second = uuid.uuid4().hex, f'it\'s "{uuid.uuid4().hex}"'
    claimed = stack.claim("pia", pool, 120_000, secrets={"PASSWORD": first})
    assert person(stack, claimed) == "postgres postgres /state"
    assert memory(stack, claimed, "/dev/shm") == 128 * MB
    query(claimed, first, "CREATE TABLE numbers AS SELECT n, md5(n::text) AS hash FROM generate_series(1, 20000) n")
    summary = "SELECT count(*), md5(string_agg(hash, '' ORDER BY n)) FROM numbers"
    before = query(claimed, first, summary)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(claimed, second, summary)
    endpoint = claimed["endpoints"][0]
    place = {"host": endpoint["host"], "port": endpoint["port"], "dbname": "postgres", "user": "postgres"}
    with psycopg.connect(**place, password=first) as staying:  # SIGTERM would wait for this one until it is killed
        staying.execute("SELECT 1")
        stack.release("pia")
        with pytest.raises(psycopg.OperationalError):
            staying.execute("SELECT 1")

    again = stack.claim("pia", pool, 120_000, secrets={"PASSWORD": second})
    assert query(again, second, summary) == before == [(20_000, before[0][1])]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(again, first, summary)
    log = stack.call("GET", f"containers/{again['containerId']}/logs").text
    assert "database system was shut down at" in log
    assert "not properly shut down" not in log


def test_postgresql_saved_while_it_runs_starts_from_that_moment(stack, example):
    """A periodic save is like a power cut: the next server recovers, with all committed data."""
    pool = example("postgresql")
    claimed = stack.claim("pim", pool, 120_000, secrets={"PASSWORD": "x"})
    query(claimed, "x", "CREATE TABLE numbers AS SELECT generate_series(1, 5000) n")
    run = stack.ok("POST", "tenants/pim/sync", {"direction": "outward"}, 202)["runs"][0]
    eventually(lambda: stack.ok("GET", f"sync-runs/{run['id']}")["state"] == "succeeded", 60)
    query(claimed, "x", "INSERT INTO numbers SELECT generate_series(5001, 6000)")
    stack.ok("POST", "tenants/pim/release", {"sync": False})

    again = stack.claim("pim", pool, 120_000, secrets={"PASSWORD": "x"})
    assert query(again, "x", "SELECT count(*) FROM numbers") == [(5000,)]
    assert "not properly shut down" in stack.call("GET", f"containers/{again['containerId']}/logs").text


WORK = """
set -e; cd /workspace; git init -q -b main project; cd project
for n in 1 2 3 4 5; do echo "print($n)" > "p$n.py"; git add .; git commit -q -m "Add $n"; done
printf '#!/bin/sh\\necho hook >> ../hooks\\n' > .git/hooks/post-commit; chmod +x .git/hooks/post-commit
mkdir -p greeter; printf '{"name": "greeter", "version": "1.0.0", "bin": "run.js"}' > greeter/package.json
printf '#!/usr/bin/env node\\nconsole.log("hello of node " + process.versions.node.split(".")[0])\\n' > greeter/run.js; chmod +x greeter/run.js
"""
INSTALL = """
set -e; cd /workspace/project
python3 - <<'END'
import zipfile
with zipfile.ZipFile("tool-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tool.py", "def main(): print('hello of python')")
    wheel.writestr("tool-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tool\\nVersion: 1\\n")
    wheel.writestr("tool-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("tool-1.dist-info/entry_points.txt", "[console_scripts]\\ntool = tool:main\\n")
    wheel.writestr("tool-1.dist-info/RECORD", "")
END
python3 -m venv .venv; .venv/bin/pip install -q --no-index ./tool-1-py3-none-any.whl
npm init -y >/dev/null; npm install --offline --no-audit --no-fund ./greeter >/dev/null
printf '.venv\\nnode_modules\\n*.egg-info\\nbuild\\n' > .gitignore
git add .; git commit -q -m "Add tools"
"""
LOOK = """
set -e; cd /workspace/project; git fsck --strict; git status --porcelain; git log --oneline | wc -l
.venv/bin/tool; .venv/bin/pip --version | cut -d' ' -f1; npx greeter; cat ../hooks
"""


def test_the_toolbox_keeps_repository_environment_and_packages(stack, example):
    """Git has a name, builds run from TMPDIR, hooks and links are what they were."""
    pool = example("toolbox")
    claimed = stack.claim("tom", pool)
    run(stack, claimed, WORK)
    run(stack, claimed, INSTALL)
    assert person(stack, claimed) == "agent agent /workspace"
    assert memory(stack, claimed, "/tmp") == 256 * MB
    assert run(stack, claimed, "ulimit -Sn; ulimit -Hn") == "16384\n16384\n"
    assert "No user exists" not in run(
        stack, claimed, "ssh -o BatchMode=yes -o ConnectTimeout=1 127.0.0.1 2>&1 || true"
    )
    before = run(stack, claimed, LOOK)
    assert before == "6\nhello of python\npip\nhello of node 24\nhook\n"
    stack.release("tom")

    again = stack.claim("tom", pool)
    assert run(stack, again, LOOK) == before
    more = "cd /workspace/project && echo more > more && git add more && git commit -q -m 'Add more' && cat ../hooks"
    assert run(stack, again, more) == "hook\nhook\n"
    for place in ("$TMPDIR", "/tmp"):
        script = f"printf '#!/bin/sh\\necho ran' > {place}/x; chmod +x {place}/x; {place}/x"
        assert run(stack, again, script) == "ran\n"
    run(stack, again, "(sleep 0.2 &) ; sleep 1")  # its parent is gone: process 1 has to reap it
    assert run(stack, again, "grep -l ') Z ' /proc/[0-9]*/stat | wc -l") == "0\n"


PAGE = """<title>none</title><h1>Here</h1><script>
localStorage.visits = Number(localStorage.visits || 0) + 1; document.title = `visit ${localStorage.visits}`</script>"""
VISIT = """cd /tmp; printf %s "$PAGE" > index.html; python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 & server=$!
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8000))' 2>/dev/null; do sleep 0.1; done
browse http://127.0.0.1:8000/ /state/page.png; code=$?; kill $server; exit $code"""

# Three canvases of 34 MB each, which the page's process hands to the one that draws.
LARGE = """<body><script>for (let n = 1; n <= 3; n++) {
const canvas = document.createElement("canvas"); canvas.width = canvas.height = 2900; canvas.style.width = canvas.style.height = "200px";
const pen = canvas.getContext("2d"); pen.fillStyle = `rgb(10, ${40 * n}, 200)`; pen.fillRect(0, 0, 2900, 2900); document.body.append(canvas) }
document.title = "drawn"</script>"""


def test_chromium_takes_a_picture_and_knows_the_page_after_its_return(stack, example):
    """A browser in a container, its profile kept."""
    pool = example("chromium")
    visit = f"PAGE='{PAGE}'; {VISIT}"
    claimed = stack.claim("cho", pool)
    assert run(stack, claimed, visit) == "visit 1\n"
    picture = base64.b64decode(run(stack, claimed, "base64 /state/page.png"))
    assert picture.startswith(PNG)
    assert picture[16:24] == (1280).to_bytes(4) + (800).to_bytes(4)
    stack.release("cho")

    again = stack.claim("cho", pool)
    assert run(stack, again, visit) == "visit 2\n"

    assert run(stack, again, f"PAGE='{LARGE}'; {VISIT}") == "drawn\n"


class Lab:
    """A tenant's JupyterLab by its own API."""

    def __init__(self, claimed: dict[str, Any], token: str) -> None:
        self.base, self.headers = address(claimed), {"Authorization": f"token {token}"}

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(method, f"{self.base}/api/{path}", json=body, headers=self.headers, timeout=60)

    def run_cell(self, code: str) -> str:
        """What a new kernel prints when it runs the code."""
        kernel = self.call("POST", "kernels", {"name": "python3"}).json()["id"]
        header = {"msg_id": "1", "username": "", "session": "1", "msg_type": "execute_request", "version": "5.3"}
        request = {
            "header": header, "parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell",
            "content": {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False},
        }  # fmt: skip
        url = f"{self.base.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels"
        printed = ""
        with connect(url, additional_headers=self.headers, open_timeout=60) as channel:
            channel.send(json.dumps(request))
            while True:
                message = json.loads(channel.recv(timeout=120))
                if message["parent_header"].get("msg_id") != "1":
                    continue
                if message["msg_type"] == "stream":
                    printed += message["content"]["text"]
                assert message["msg_type"] != "error", message["content"]
                if message["msg_type"] == "execute_reply":
                    return printed


CELL = {
    "cell_type": "code",
    "id": "one",
    "metadata": {},
    "source": "print(6 * 7)",
    "outputs": [],
    "execution_count": None,
}
NOTEBOOK = {
    "cells": [CELL],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def saves_the_notebook(response: Response) -> bool:
    return response.request.method == "PUT" and response.url.partition("?")[0].endswith("contents/work.ipynb")


def test_jupyterlab_runs_a_cell_in_the_browser_and_has_the_notebook_after_its_return(
    stack, example, browser: Browser, tmp_path: Path
):
    """State next to the image's files; the token is the claim's, although the server started before the claim."""
    pool = example("jupyterlab")
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    claimed = stack.claim("jo", pool, secrets={"TOKEN": first})
    lab = Lab(claimed, first)
    assert Lab(claimed, second).call("GET", "contents").status_code == 403
    assert lab.run_cell("open('made by a kernel', 'w').write('x'); print(6 * 7)") == "42\n"
    assert lab.call("PUT", "contents/work.ipynb", {"type": "notebook", "content": NOTEBOOK}).status_code == 201

    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address(claimed)}/lab/tree/work.ipynb?token={first}")
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    cell.locator(".cm-content").click(timeout=120_000)
    # The toolbar names a kernel before there is one, and a cell that is run then runs nothing.
    expect(page.get_by_role("contentinfo")).to_contain_text("| Idle", timeout=60_000)
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text("42", timeout=60_000)
    # No poll: Jupyter writes in place, and a notebook that is read meanwhile is taken for a broken one and put aside.
    with page.expect_response(saves_the_notebook, timeout=60_000) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.status == 200
    page.screenshot(path=tmp_path / "jupyterlab.png")
    page.close()
    stack.release("jo")

    returned = stack.claim("jo", pool, secrets={"TOKEN": second})
    again = Lab(returned, second)
    kept = again.call("GET", "contents/work.ipynb").json()["content"]["cells"][0]
    assert (kept["source"], kept["outputs"][0]["text"]) == ("print(6 * 7)", "42\n")
    assert person(stack, returned) == "jovyan jovyan /state"
    assert again.run_cell("import getpass; print(getpass.getuser())") == "jovyan\n"
    assert again.run_cell("from glob import glob; print(sorted(glob('*')))") == "['made by a kernel', 'work.ipynb']\n"
    assert (
        Lab(stack.claim("joy", pool, secrets={"TOKEN": first}), first).call("GET", "contents/work.ipynb").status_code
        == 404
    )


def test_code_server_edits_a_file_in_the_browser_and_has_it_after_its_return(stack, example, browser: Browser):
    """An editor that writes into its home at its start, as a user that the image names."""
    pool = example("editor")
    claimed = stack.claim("eda", pool, 120_000, secrets={"PASSWORD": "of this claim"})
    run(stack, claimed, "touch /state/project/words.txt")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address(claimed))
    page.locator("input[type=password]").fill("of this claim")
    page.keyboard.press("Enter")
    page.locator(".explorer-folders-view").get_by_text("words.txt").dblclick(timeout=120_000)
    page.locator(".editor-instance .view-lines").first.click(timeout=60_000)
    page.keyboard.type("written through it")
    page.keyboard.press("Control+s")
    eventually(lambda: run(stack, claimed, "cat /state/project/words.txt") == "written through it", 60, 1)
    page.close()
    stack.release("eda")

    again = stack.claim("eda", pool, 120_000, secrets={"PASSWORD": "another"})
    assert run(stack, again, "cat /state/project/words.txt") == "written through it"
    assert person(stack, again) == "coder coder /state"
    assert run(stack, again, "ulimit -Sn; node -p 'os.userInfo().username'; echo $SHELL").split() == [
        "16384",
        "coder",
        "/bin/bash",
    ]
    login = {"password": "of this claim"}, {"password": "another"}
    codes = [
        requests.post(f"{address(again)}/login", data=one, timeout=30, allow_redirects=False).status_code
        for one in login
    ]
    assert codes == [200, 302]
