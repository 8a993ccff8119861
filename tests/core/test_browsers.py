"""What browsers and terminals are made to do by others: cookies, links that log in, control characters."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.checks import run_checks

from tests.make import make_container, make_pool, make_workload

pytestmark = pytest.mark.any_database

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
    """W1: browsers know no ports when they send cookies."""
    settings.BOILERHOUSE_PUBLISH_HOST, settings.ALLOWED_HOSTS = host, names
    settings.CSRF_TRUSTED_ORIGINS = origins
    kinds = ("boilerhouse.E046", "boilerhouse.E047", "boilerhouse.W045")
    assert [one.id for one in run_checks() if one.id in kinds] == expected


@pytest.mark.parametrize(
    ("https", "base", "expected"),
    [("false", "", "sessionid"), ("true", "", "__Host-sessionid"), ("true", "/bh", "__Secure-sessionid")],
)
def test_behind_tls_the_cookies_are_of_this_very_host(tmp_path, https, base, expected):
    """W1: a tenant's page at a name below ours, or at its plain http, can set no cookie that counts for us."""
    says = "from django.conf import settings as s; print(s.SESSION_COOKIE_NAME, s.SESSION_COOKIE_SECURE, s.SESSION_COOKIE_DOMAIN)"
    environment = {
        **os.environ, "BOILERHOUSE_DATA_DIR": str(tmp_path), "BOILERHOUSE_HTTPS": https, "BOILERHOUSE_BASE_PATH": base,
        "DJANGO_SETTINGS_MODULE": "boilerhouse.settings",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", says], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, str(https == "true"), "None"]


def test_endpoints_say_where_a_published_port_is(data_dir):
    """W1: also of containers that were started when all were at 127.0.0.1."""
    workload = make_workload(ports=[{"name": "http", "container_port": 8080, "publish": True}])
    container = make_container(make_pool(workload=workload))
    container.address = "10.64.0.9"
    for kept, expected in (("127.0.0.2:20041", "127.0.0.2"), (20041, "127.0.0.1")):
        container.host_ports = {"http": kept}
        assert container.endpoints() == [
            {
                "name": "http", "host": "10.64.0.9", "port": 8080, "url": "http://10.64.0.9:8080",
                "hostAddress": expected, "hostPort": 20041, "hostUrl": f"http://{expected}:20041",
            }
        ]  # fmt: skip
