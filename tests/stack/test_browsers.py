"""Tenants' pages in the browser of a user who is signed in to the dashboard."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Error

from tests.stack.chromium import browser  # noqa: F401
from tests.stack.conftest import eventually, manage

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
LISTEN = (
    "while :; do printf 'HTTP/1.0 200 OK\\r\\nContent-Type: text/html\\r\\n\\r\\n<p id=page>of a tenant</p>'"
    " | nc -l -p 8080 >> /state/asked; done"
)


@pytest.fixture
def published(stack):
    """The address of a tenant's program that records its requests."""
    pool = stack.make_pool(workload={
        "command": ["sh", "-c", LISTEN], "ports": [{"name": "http", "containerPort": 8080, "publish": True}],
    })  # fmt: skip
    claimed = stack.claim("listener", pool)
    yield claimed
    stack.release("listener")
    stack.drop_pool(pool)


def test_a_published_port_gets_no_cookie_of_the_dashboards(stack, browser, published):  # noqa: F811
    """The port was at 127.0.0.1 like the dashboard, and the tenant's program created an admin key."""
    endpoint = published["endpoints"][0]
    assert endpoint["hostAddress"] == "127.0.0.2"
    assert endpoint["hostUrl"] == f"http://127.0.0.2:{endpoint['hostPort']}"
    made = manage("login_link", "--create", "--user", "looker")
    assert made.returncode == 0, made.stderr
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(made.stdout.strip())
        assert any(one["name"] == "sessionid" for one in context.cookies(stack.base))
        eventually(lambda: _opens(page, endpoint["hostUrl"]), 30)
        assert page.locator("#page").inner_text() == "of a tenant"
    asked = stack.exec(published["containerId"], "cat /state/asked")
    assert "GET / HTTP/1.1" in asked
    assert "Cookie:" not in asked
    assert "sessionid" not in asked
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", endpoint["hostPort"]), timeout=2)


def test_a_link_opens_a_port_through_the_gateway_and_the_container_gets_neither(stack, browser, published):  # noqa: F811
    endpoint = published["endpoints"][0]
    assert endpoint in stack.status("listener")["endpoints"]
    link = stack.ok("POST", "tenants/listener/ports/8080/links", {"expiresInS": 600}, 201)["url"]
    assert link.startswith(endpoint["publicUrl"])
    with browser.new_context() as context:
        page = context.new_page()
        assert page.goto(endpoint["publicUrl"]).status == 401
        eventually(lambda: _opens(page, link), 30)
        assert page.url == endpoint["publicUrl"]
        assert page.locator("#page").inner_text() == "of a tenant"
        (cookie,) = context.cookies(endpoint["publicUrl"])
        assert (cookie["httpOnly"], cookie["domain"]) == (True, urlsplit(link).hostname)
    asked = stack.exec(published["containerId"], "cat /state/asked")
    assert "Host: 8080-" in asked
    assert "token" not in asked
    assert cookie["name"] not in asked


def _opens(page, url: str) -> bool:
    """Whether the tenant's program answers; the gateway answers for it between two connections."""
    try:
        return bool(page.goto(url).status == 200)
    except Error:  # the program is between two connections
        return False
