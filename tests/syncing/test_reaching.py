"""How sinks are reached: certificates and proxies, the same for rclone and for the clients in the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncing.sinks import S3Sink, reaching


@pytest.fixture
def proxies(settings):
    settings.HTTP_PROXY, settings.HTTPS_PROXY, settings.NO_PROXY = "http://proxy:3128", "proxy:3129", []
    return settings


@pytest.mark.parametrize(
    ("address", "proxy"),
    [
        ("http://s3.corp.test", "http://proxy:3128"),
        ("https://s3.corp.test:9000", "http://proxy:3129"),
        ("http://localhost:9000", ""),
        ("http://127.0.0.1:9000", ""),
        ("https://127.8.8.8", ""),
        ("http://[::1]:9000", ""),
        ("http://10.0.0.1", "http://proxy:3128"),
        ("", ""),
    ],
)
def test_a_proxy_is_found_by_the_endpoints_scheme_and_never_for_loopback(proxies, address, proxy):
    """B26"""
    assert reaching.proxy_for(address) == proxy


@pytest.mark.parametrize(
    ("entry", "address", "is_direct"),
    [
        ("s3.corp.test", "http://s3.corp.test", True),
        ("S3.Corp.test", "http://s3.corp.test", True),
        ("corp.test", "http://s3.corp.test", True),
        ("orp.test", "http://s3.corp.test", False),
        (".corp.test", "http://s3.corp.test", True),
        (".corp.test", "http://corp.test", False),
        ("*.corp.test", "http://s3.corp.test", True),
        ("*", "http://s3.corp.test", True),
        ("s3.corp.test:9000", "http://s3.corp.test:9000", True),
        ("s3.corp.test:9000", "http://s3.corp.test:9001", False),
        ("s3.corp.test:443", "https://s3.corp.test", True),
        ("10.0.0.1", "http://10.0.0.1:9000", True),
        ("10.0.0.0/8", "http://10.200.0.1", True),
        ("10.0.0.0/8", "http://11.0.0.1", False),
        ("10.0.0.1:9000", "http://10.0.0.1:9001", False),
        ("fd00::/8", "http://[fd00::5]:9000", True),
        ("[fd00::5]", "http://[fd00::5]:9000", True),
        ("fd00::/8", "http://s3.corp.test", False),
        (" corp.test ", "http://s3.corp.test", True),
    ],
)
def test_what_no_proxy_names_is_asked_directly(proxies, entry, address, is_direct):
    """B26: names, suffixes, addresses, networks, ports."""
    proxies.NO_PROXY = ["elsewhere.test", entry]

    assert (reaching.proxy_for(address) == "") is is_direct


def test_rclone_gets_one_proxy_or_none(proxies):
    """B26: it has no rule of its own to decide by."""
    proxies.NO_PROXY = ["quiet.test"]

    assert reaching.rclone_environment("https://s3.corp.test") == {"HTTPS_PROXY": "http://proxy:3129"}
    assert reaching.rclone_environment("http://s3.corp.test") == {"HTTP_PROXY": "http://proxy:3128"}
    assert reaching.rclone_environment("http://quiet.test") == {}


def test_amazons_own_endpoint_is_known_by_name(proxies):
    """B26: NO_PROXY may name it, as for a gateway endpoint of a private network."""
    sink = S3Sink("states", "eu-central-1", "")
    assert reaching.proxy_for(sink.address) == "http://proxy:3129"

    proxies.NO_PROXY = [".amazonaws.com"]
    assert reaching.proxy_for(sink.address) == ""


def test_without_a_bundle_of_its_own_the_systems_certificates_count(settings):
    settings.BOILERHOUSE_CA_BUNDLE = ""
    assert "-----BEGIN CERTIFICATE-----" in Path(reaching.ca_bundle()).read_text()

    settings.BOILERHOUSE_CA_BUNDLE = "/etc/own.pem"
    assert reaching.ca_bundle() == "/etc/own.pem"
