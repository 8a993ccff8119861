"""Behind a proxy: requests over TLS and without it, the node's own requests, and requests from pages of other sites."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.test import Client

from boilerhouse.web.transport import PROBES, SENT_TO_TLS
from tests.api_calls import problem

pytestmark = pytest.mark.any_database
NAME = "boilerhouse.example.com"
PASSWORD = "the right long password"
PROXIED = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_HOST": NAME}


@pytest.fixture
def behind_tls(settings, db, data_dir):
    """The settings that deploy/systemd/boilerhouse.env.example makes."""
    settings.ALLOWED_HOSTS = [NAME]
    settings.CSRF_TRUSTED_ORIGINS = [f"https://{NAME}"]
    settings.BOILERHOUSE_HTTPS = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.BOILERHOUSE_METRICS_TOKEN = "scraper"
    return settings


def direct(host: str = "127.0.0.1:8000", peer: str = "127.0.0.1", **more: str) -> dict[str, str]:
    return {"HTTP_HOST": host, "REMOTE_ADDR": peer, "HTTP_AUTHORIZATION": "Bearer scraper", **more}


@pytest.mark.parametrize("path", sorted(PROBES))
@pytest.mark.parametrize(
    ("host", "peer"),
    [("127.0.0.1:8001", "127.0.0.1"), ("localhost", "127.0.0.1"), ("[::1]:8000", "::1"),
     ("127.0.0.1", "::ffff:127.0.0.1")],
)  # fmt: skip
def test_the_node_asks_for_health_and_metrics_over_plain_http(client, behind_tls, path, host, peer):
    """The health check got 400, or a redirect to TLS that the process does not support."""
    asked = direct(host, peer)
    if "metrics" not in path:
        del asked["HTTP_AUTHORIZATION"]
    for method in ("get", "head"):
        answer = getattr(client, method)(path, **asked)
        assert answer.status_code == (503 if path.endswith("ready") else 200), answer.content
        assert "Location" not in answer
    if "metrics" in path:
        assert client.get(path, **direct(host, peer, HTTP_AUTHORIZATION="Bearer other")).status_code == 401


@pytest.mark.parametrize("allowed", [[".example.com"], ["*"], ["a.example", "b.example"]])
def test_a_probe_is_answered_whatever_the_allowed_hosts_are(client, behind_tls, allowed):
    behind_tls.ALLOWED_HOSTS = allowed
    assert client.get("/health", **direct()).status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        direct(peer="192.0.2.7"),  # from outside, to a loopback name
        direct(peer="192.0.2.7", HTTP_X_FORWARDED_FOR="127.0.0.1"),
        direct(HTTP_X_FORWARDED_FOR="127.0.0.1"),  # through a proxy on this machine that passes the host on
        direct(HTTP_X_FORWARDED_FOR="203.0.113.9"),
        direct(HTTP_X_FORWARDED_PROTO="http"),
        direct(HTTP_X_FORWARDED_PROTO="https"),
        direct(HTTP_X_REAL_IP="127.0.0.1"),
        direct(HTTP_FORWARDED="for=127.0.0.1;proto=https"),
        direct(host=NAME),  # through a proxy that says nothing of itself
        direct(host="127.0.0.1.example.com"),
        direct(host="127.0.0.1,boilerhouse.example.com"),
        direct(host="evil.example"),
        direct(host=""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", sorted(PROBES))
def test_what_only_looks_like_the_node_is_answered_as_anybody(client, behind_tls, path, asked):
    """Neither a header nor a host name makes a request a health check."""
    answer = client.get(path, **asked)
    assert answer.status_code in (302, 400, 403), answer.content
    assert "boilerhouse_" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/", "/login/", "/admin/", "/api/v1/pools", "/api/v1/openapi.json", "/static/app.js",
                                  "/api/v1/health/../pools", "/metrics/", "/health/x"])  # fmt: skip
def test_the_node_gets_nothing_else_without_tls(client, behind_tls, path):
    """Only health and metrics."""
    assert client.get(path, **direct()).status_code in (400, 403)
    assert client.post("/api/v1/health", **direct()).status_code == 403
    assert client.post("/metrics", **direct()).status_code == 403


def test_without_https_the_node_still_asks_by_its_own_name(client, settings, db, data_dir):
    """A health check is 127.0.0.1 wherever the public name is."""
    settings.ALLOWED_HOSTS = [NAME]
    assert client.get("/health", **direct()).status_code == 200
    assert client.get("/login/", **direct()).status_code == 400
    assert client.get("/login/", **direct(host=NAME)).status_code == 200


def test_a_lost_header_is_named_instead_of_a_redirect_in_a_circle(client, behind_tls):
    """TLS ends at a proxy that sends no header; the browser was redirected to https endlessly."""
    answer = client.get("/login/", HTTP_HOST=NAME, HTTP_X_FORWARDED_FOR="203.0.113.9")
    assert answer.status_code == 403
    said = answer.content.decode()
    assert "X-Forwarded-Proto" in said
    assert "BOILERHOUSE_HTTPS" in said
    found = problem(client.get("/api/v1/pools", HTTP_HOST=NAME), 403, "tls_required")
    assert "X-Forwarded-Proto" in found["detail"]


def test_a_browser_on_plain_http_is_sent_to_tls_once(client, behind_tls):
    """Two proxies, and the inner one says http: the second time the page says so."""
    plain = {**PROXIED, "HTTP_X_FORWARDED_PROTO": "http", "HTTP_HOST": f"{NAME}:8443"}
    answer = client.get("/login/?next=/pools/", **plain)
    assert (answer.status_code, answer["Location"]) == (302, f"https://{NAME}:8443/login/?next=/pools/")
    cookie = answer.cookies[SENT_TO_TLS]
    assert cookie["secure"], "a browser that is not on TLS does not keep it"
    answer = client.get("/login/", **plain)  # with the cookie: it was on TLS
    assert answer.status_code == 403
    assert "overwrites the header" in answer.content.decode()
    assert client.get("/login/", **PROXIED).status_code == 200


def test_programs_and_forms_on_plain_http_are_refused_not_redirected(client, behind_tls):
    """A redirect turns a POST into a GET and sends the key over the unencrypted connection once more."""
    plain = {**PROXIED, "HTTP_X_FORWARDED_PROTO": "http"}
    problem(client.post("/api/v1/pools", **plain), 403, "tls_required")
    problem(client.get("/api/v1/pools", **plain), 403, "tls_required")
    assert client.post("/login/", **plain).status_code == 403


def test_a_name_that_is_not_allowed_is_said_with_the_setting(client, behind_tls):
    """It was "Bad Request (400)"."""
    asked = {**PROXIED, "HTTP_HOST": "other.example:8443"}
    for answer in (client.get("/login/", **asked), client.get("/api/v1/pools", **asked)):
        assert answer.status_code == 400
        assert "other.example:8443" in answer.content.decode()
        assert "BOILERHOUSE_ALLOWED_HOSTS" in answer.content.decode()


def sign_in(client: Client, **asked: str):
    client.get("/login/", **asked)
    token = client.cookies["csrftoken"].value if "csrftoken" in client.cookies else ""
    given = {"username": "ada", "password": PASSWORD, "csrfmiddlewaretoken": token}
    return client.post("/login/", given, **asked)


def test_signing_in_works_on_another_port(behind_tls):
    """The proxy forwards the host with its port, or the origin is trusted."""
    User.objects.create_superuser("ada", password=PASSWORD)
    asked = {**PROXIED, "HTTP_ORIGIN": f"https://{NAME}:8443"}
    assert sign_in(Client(enforce_csrf_checks=True), **{**asked, "HTTP_HOST": f"{NAME}:8443"}).status_code == 302
    behind_tls.CSRF_TRUSTED_ORIGINS = [f"https://{NAME}:8443"]
    client = Client(enforce_csrf_checks=True)
    assert sign_in(client, **asked).status_code == 302
    referer = f"https://{NAME}:8443/pools/?q=x"
    token = client.cookies["csrftoken"].value
    answer = client.post("/theme", {"theme": "dark", "csrfmiddlewaretoken": token}, HTTP_REFERER=referer, **asked)
    assert answer["Location"] == "/pools/?q=x", "back to the page, at the port where the browser is"


def test_a_refused_form_says_which_origin_came_and_which_setting_takes_it(behind_tls):
    """It was "CSRF verification failed"."""
    client = Client(enforce_csrf_checks=True)
    answer = sign_in(client, **{**PROXIED, "HTTP_ORIGIN": f"https://{NAME}:8443"})
    said = answer.content.decode()
    assert answer.status_code == 403
    assert f"https://{NAME}:8443" in said
    assert "BOILERHOUSE_TRUSTED_ORIGINS" in said
    assert "$http_host" in said
    behind_tls.BOILERHOUSE_HTTPS, behind_tls.SECURE_PROXY_SSL_HEADER = False, None
    behind_tls.CSRF_TRUSTED_ORIGINS = []
    plain = sign_in(Client(enforce_csrf_checks=True), **{**PROXIED, "HTTP_ORIGIN": f"https://{NAME}"})
    assert "BOILERHOUSE_HTTPS=true" in plain.content.decode()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"HTTP_ORIGIN": "https://<script>alert(1)</script>"}, "&lt;script&gt;"),
        ({"HTTP_ORIGIN": "null"}, "at null"),
        ({"HTTP_REFERER": "http://["}, "Origin nor Referer"),
        ({}, "Origin nor Referer"),
        ({"HTTP_ORIGIN": f"https://{NAME}"}, "Allow cookies"),
    ],
)
def test_a_form_of_who_knows_where_is_refused_in_words(behind_tls, asked, said):
    answer = Client(enforce_csrf_checks=True).post("/login/", **PROXIED, **asked)
    assert answer.status_code == 403
    assert said in answer.content.decode()
    assert "<script>" not in answer.content.decode()


def test_a_guesser_behind_the_proxy_locks_nobody_else_out(behind_tls):
    """Behind a proxy every client had one address; a client's own header must not count."""
    behind_tls.AXES_FAILURE_LIMIT = 3
    User.objects.create_superuser("ada", password=PASSWORD)
    for number in range(4):  # the proxy writes the last address, the guesser what is before it
        asked = {**PROXIED, "HTTP_X_FORWARDED_FOR": f"198.51.100.{number}, 203.0.113.9"}
        answer = Client().post("/login/", {"username": "ada", "password": "wrong"}, REMOTE_ADDR="127.0.0.1", **asked)
    assert answer.status_code == 429
    right = {"username": "ada", "password": PASSWORD}
    asked = {**PROXIED, "HTTP_X_FORWARDED_FOR": "198.51.100.0"}
    assert Client().post("/login/", right, REMOTE_ADDR="127.0.0.1", **asked).status_code == 302
    claimed = {**PROXIED, "HTTP_X_FORWARDED_FOR": "198.51.100.0"}  # from another machine: by its own address
    for _ in range(4):
        answer = Client().post("/login/", {"username": "bob", "password": "x"}, REMOTE_ADDR="192.0.2.1", **claimed)
        claimed["HTTP_X_FORWARDED_FOR"] = "198.51.100.1"
    assert answer.status_code == 429


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("ALLOWED_HOSTS", [f"{NAME}:8443"], "E010"),
        ("ALLOWED_HOSTS", [f"https://{NAME}"], "E010"),
        ("ALLOWED_HOSTS", [NAME, ""], "E010"),
        ("ALLOWED_HOSTS", ["::1"], "E010"),
        ("CSRF_TRUSTED_ORIGINS", [NAME], "E011"),
        ("CSRF_TRUSTED_ORIGINS", [f"https://{NAME}/bh/"], "E011"),
    ],
)
def test_a_host_or_an_origin_that_nothing_could_match_is_refused_at_start(settings, name, value, number):
    setattr(settings, name, value)
    found = {one.id: one for one in run_checks()}
    assert repr(value[-1]) in found[f"boilerhouse.{number}"].msg


@pytest.mark.parametrize(
    "path",
    ["bh", "/b h", "/../x", "/x//y", "/pools", "/api/x", "/static", "/ws", "/admin", "/login", "/metrics", "/%62h"],
)
def test_a_base_path_that_leads_nowhere_or_to_two_places_is_refused_at_start(settings, path):
    settings.BOILERHOUSE_BASE_PATH = path
    found = {one.id: one for one in run_checks()}
    assert repr(path) in found["boilerhouse.E013"].msg
    for fine in ("", "/boilerhouse", "/tools/bh-1", "/poolside"):
        settings.BOILERHOUSE_BASE_PATH = fine
        assert "boilerhouse.E013" not in {one.id for one in run_checks()}


def test_hosts_and_origins_as_they_are_written_pass(behind_tls):
    behind_tls.ALLOWED_HOSTS = [NAME, ".example.org", "*", "127.0.0.1", "[::1]", "localhost"]
    behind_tls.CSRF_TRUSTED_ORIGINS = [f"https://{NAME}:8443", "https://*.example.org", "http://[::1]:80"]
    assert not {"boilerhouse.E010", "boilerhouse.E011", "boilerhouse.W004"} & {one.id for one in run_checks()}
    behind_tls.ALLOWED_HOSTS, behind_tls.CSRF_TRUSTED_ORIGINS = ["localhost"], []
    assert "boilerhouse.W004" in {one.id for one in run_checks()}
