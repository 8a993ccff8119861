"""Attacks through browsers and terminals: cookies, login links, control characters."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.management import call_command
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from boilerhouse.core import text
from boilerhouse.core.events import emit, recording
from boilerhouse.dashboard.log_lines import log_lines
from boilerhouse.operations.login_tokens import login_tokens
from boilerhouse.process import commands
from tests.make import make_container, make_pool, make_workload
from tests.webserver import running

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

# Published ports and cookies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "names", "origins", "expected"),
    [
        ("127.0.0.2", ["localhost", "127.0.0.1", "[::1]"], [], []),
        ("127.0.0.2", ["boilerhouse.example.com"], ["https://boilerhouse.example.com"], []),
        ("127.0.0.1", ["boilerhouse.example.com"], [], []),
        ("127.0.0.1", ["localhost", "127.0.0.1"], [], ["boilerhouse.E047"]),
        ("127.0.0.1", ["localhost"], [], ["boilerhouse.E047"]),
        ("127.0.0.2", ["127.0.0.2"], [], ["boilerhouse.E047"]),
        ("127.0.0.2", ["a.example"], ["http://127.0.0.2:8000"], ["boilerhouse.E047"]),
        ("127.0.0.2", ["*"], [], ["boilerhouse.W045"]),
        ("0.0.0.0", ["a.example"], [], ["boilerhouse.E046"]),
        ("192.0.2.7", ["a.example"], [], ["boilerhouse.E046"]),
        ("localhost", ["a.example"], [], ["boilerhouse.E046"]),
        ("", ["a.example"], [], ["boilerhouse.E046"]),
    ],
)
def test_ports_are_not_published_where_the_dashboard_is_opened(settings, data_dir, host, names, origins, expected):
    """Browsers send cookies to every port of a host."""
    settings.BOILERHOUSE_PUBLISH_HOST, settings.ALLOWED_HOSTS = host, names
    settings.CSRF_TRUSTED_ORIGINS = origins
    kinds = ("boilerhouse.E046", "boilerhouse.E047", "boilerhouse.W045")
    assert [one.id for one in run_checks() if one.id in kinds] == expected


@pytest.mark.parametrize(
    ("https", "base", "expected"),
    [("false", "", "sessionid"), ("true", "", "__Host-sessionid"), ("true", "/bh", "__Secure-sessionid")],
)
def test_behind_tls_the_cookies_are_of_this_very_host(tmp_path, https, base, expected):
    """A tenant's page at a subdomain, or over plain http, cannot set a cookie that we accept."""
    says = "from django.conf import settings as s; print(s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.SESSION_COOKIE_DOMAIN)"
    environment = {
        **os.environ, "BOILERHOUSE_DATA_DIR": str(tmp_path), "BOILERHOUSE_HTTPS": https, "BOILERHOUSE_BASE_PATH": base,
        "DJANGO_SETTINGS_MODULE": "boilerhouse.settings",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", says], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, str(https == "true"), "None"]


def test_endpoints_say_where_a_published_port_is(data_dir):
    """Also for containers started when all of them were at 127.0.0.1."""
    workload = make_workload(ports=[{"name": "http", "container_port": 8080, "publish": True}])
    container = make_container(make_pool(workload=workload))
    container.address = "10.64.0.9"
    for kept, expected in (("127.0.0.2:20041", "127.0.0.2"), (20041, "127.0.0.1")):
        container.host_ports = {"http": kept}
        assert container.endpoints() == [
            {
                "name": "http", "host": "10.64.0.9", "port": 8080, "access": "private", "url": "http://10.64.0.9:8080",
                "hostAddress": expected, "hostPort": 20041, "hostUrl": f"http://{expected}:20041",
            }
        ]  # fmt: skip


# Links that log in ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    with running(tmp_path_factory.mktemp("browsers"), BOILERHOUSE_LOG_FORMAT="console") as one:
        yield one


def test_a_link_logs_in_once_however_many_follow_it_at_once(web):
    """Four of eight were logged in."""
    path = web.manage("login_link", "--create", "--user", "once").strip()
    with ThreadPoolExecutor(8) as together:
        asked = [together.submit(requests.get, web.base + path, timeout=30, allow_redirects=False) for _ in range(8)]
    found = sorted(one.result().status_code for one in asked)
    assert found == [302] + [410] * 7
    assert sum("sessionid" in one.result().cookies for one in asked) == 1


def test_what_only_looks_at_a_link_uses_nothing_up_and_leaves_nothing_in_the_log(web):
    """A HEAD got 405 and logged the path, which was still valid."""
    path = web.manage("login_link", "--create", "--user", "seen").strip()
    token = path.rstrip("/").rpartition("/")[2]
    said = [requests.head(web.base + path, timeout=10)]
    for odd in (path.rstrip("/"), f"/{path}", f"{path}x", f"/api/v1{path}", f"/nothing?next={path}"):
        said.append(requests.get(web.base + odd, timeout=10))
    said.append(requests.post(web.base + path, timeout=10))
    assert said[0].status_code == 200
    assert "sessionid" not in said[0].cookies
    used = requests.get(web.base + path, timeout=10, allow_redirects=False)
    assert used.status_code == 302
    assert used.headers["Referrer-Policy"] == "no-referrer"
    assert used.headers["Cache-Control"].startswith("max-age=0")
    again = requests.get(web.base + path, timeout=10)
    assert (again.status_code, again.headers["Referrer-Policy"]) == (410, "no-referrer")
    assert token not in web.log
    assert "/login/<uid>/<token>/" in web.log
    headers = {"Authorization": f"Bearer {web.key}"}
    for where in ("metrics", "audit", "events"):
        assert token not in requests.get(f"{web.base}/api/v1/{where}", headers=headers, timeout=10).text


def test_a_link_made_in_the_second_of_a_login_works_once(client, data_dir):
    """Django records logins with a resolution of a second."""
    user = User.objects.create_superuser("quick")
    client.force_login(user)
    user.refresh_from_db()
    token = login_tokens.make_token(user)
    client.force_login(user)
    user.refresh_from_db()
    assert not login_tokens.check_token(user, token)


# Origins of sockets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/events", f"/ws/terminal/{uuid.uuid4()}"])
def test_a_socket_opens_for_pages_of_the_very_same_origin_alone(web, path):
    """A page on any port of our host could open a shell with the operator's session."""
    own = web.base
    with requests.Session() as session:
        session.get(own + web.manage("login_link", "--create", "--user", "socket").strip(), timeout=30)
        cookie = f"sessionid={session.cookies['sessionid']}"
    others = [
        f"http://127.0.0.1:{web.port + 1}", "http://127.0.0.1", f"https://127.0.0.1:{web.port}", "null", f"{own}/", f"{own}.evil.example",
        f"http://localhost:{web.port}", f"http://127.0.0.2:{web.port}", f"{own}@evil.example", "https://evil.example", f"{own}, {own}",
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{web.port}{path}", additional_headers={"Cookie": cookie, "Origin": other})
        assert refused.value.response.status_code in (400, 403), other
    with connect(f"ws://127.0.0.1:{web.port}{path}", additional_headers={"Cookie": cookie, "Origin": own}):
        pass
    if "terminal" in path:
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{web.port}{path}", additional_headers={"Cookie": cookie})


# Control characters -----------------------------------------------------------------------------------

HOSTILE = "a\x1b]0;pwned\x07\x1b[31m\u202egnp.exe\x9b2J\u2028b\rc\x7f\x85\u2066\x0b\x0c\x1c"
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("style", ["console", "json"])
def test_nothing_acts_in_a_log(style):
    """A client's path, a tenant's file name, the text of an exception, and arguments of other libraries."""
    lines = f"""
import logging, structlog
from boilerhouse.telemetry import logs
logs.configure("{style}", "INFO")
hostile = {HOSTILE!r} + chr(10) + "forged"
structlog.get_logger("ours").info("x " + hostile, path=hostile, deep={{"a": [hostile], hostile: 1}}, error=ValueError(hostile))
logging.getLogger("theirs").warning("said %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    logging.getLogger("theirs").exception("failed")
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, check=True)
    said = done.stderr.decode()
    assert said.count("pwned") >= 5
    assert not ACTING.search(said)
    forged = [line for line in said.split("\n") if line.startswith("forged")]
    assert len(forged) <= (style == "console"), "only a traceback has lines"


def test_a_strangers_path_does_nothing_to_the_log_of_a_web_process(web):
    """ESC, C1 and bidirectional control characters appeared unescaped."""
    requests.get(f"{web.base}/api/v1/%1b]0;pwned%07%1b[31m%c2%9b2J%e2%80%aex%0aforged%e2%80%a8%0d", timeout=10)
    assert "pwned" in web.log
    assert not ACTING.search(web.log)
    assert not [line for line in web.log.split("\n") if line.startswith("forged")]


def test_nothing_acts_in_what_commands_print(data_dir, capsys):
    """A tenant's file name rang the bell and moved the cursor in `manage.py events`."""
    with recording():
        emit("sync.failed", tenant_id="alice", detail=f"{HOSTILE}\nforged")
    call_command("events", skip_checks=True)
    said = capsys.readouterr().out
    assert "pwned" in said
    assert not ACTING.search(said)
    assert not [line for line in said.split("\n") if line.startswith("forged")]
    printed = io.StringIO()
    command = commands.Command(stdout=printed, stderr=printed)
    command.say(HOSTILE)
    command.result({"output": "table"}, {}, f"one {HOSTILE}\ntwo")
    assert not ACTING.search(printed.getvalue())
    assert printed.getvalue().count("\n") == 3


def test_a_containers_output_is_exact_in_a_pipe_and_harmless_on_a_terminal():
    """`manage.py logs` and `exec`."""
    wanted = HOSTILE.encode() + b"\xff\r\nwide \xe2\x82\xac\n"
    lines = f"""
import sys
from boilerhouse.process import commands
output = commands.Output(sys.stdout)
for one in {wanted!r}:
    output.write(bytes([one]))
output.write(b"", is_last=True)
"""
    piped = subprocess.run([sys.executable, "-c", lines], capture_output=True, check=True).stdout
    assert piped == wanted
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", lines], stdout=theirs, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    assert not ACTING.search(re.sub("\r+\n", "\n", shown)), "the terminal itself adds a carriage return to each line"
    assert "wide \u20ac" in shown
    assert "\\x1b]0;pwned" in shown


def test_nothing_within_a_line_of_a_log_makes_another():
    r"""`\r`, and eight other characters at which `splitlines` splits, forged a line with its own timestamp."""
    forged = "2026-01-01T00:00:00.000000000Z forged"
    words = "".join(f"{sign}{forged}" for sign in "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    data = f"2026-11-27T10:00:00.000000001Z true{words}\r\n2026-11-27T10:00:01.000000001Z next\n".encode()
    found = log_lines(data)
    assert [line.at for line in found] == ["2026-11-27T10:00:00.000000001Z", "2026-11-27T10:00:01.000000001Z"]
    assert not ACTING.search(found[0].text)
    assert found[1].text == "next"


def test_pages_show_what_would_act(client, data_dir):
    """In any page, whichever template renders it."""
    client.force_login(User.objects.create_superuser("reader"))
    with recording():
        emit("sync.failed", tenant_id="alice", detail=f"{HOSTILE}\nsecond")
    page = client.get("/activity/").content.decode()
    assert "pwned" in page
    assert not ACTING.search(page.replace("\r\n", "\n"))
    assert "\\u202e" in page


def test_bytes_and_texts_are_judged_alike():
    """Pages are searched as bytes, which is fast, and rewritten as text."""
    for number in (*range(0x3000), 0xFEFF, 0x1F600):
        if chr(number) == "\r":
            continue
        whole = f"a{chr(number)}b\r\n"
        assert (text.printable_utf8(whole.encode()) == whole.encode()) == (text.printable(whole) == whole), hex(number)
    assert text.printable_utf8(b"a\rb\r\n") == b"a\\rb\r\n"


def test_a_text_in_pieces_is_shown_as_the_whole():
    """An escape sequence, a character and a line ending that the network splits."""
    whole = f"{HOSTILE}\r\n\u20ac {HOSTILE}\r".encode() + b"\xe2\x82"
    for size in (1, 2, 3, 7):
        printer = text.Printer()
        shown = b"".join(printer.feed(whole[at : at + size]) for at in range(0, len(whole), size))
        shown += printer.feed(b"", is_last=True)
        assert shown == text.printable(whole.decode(errors="replace")).encode()
