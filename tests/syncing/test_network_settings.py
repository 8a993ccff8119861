"""Certificates and proxies of sinks, the same for rclone and for the clients in the process."""

from __future__ import annotations

import os
import subprocess
import traceback
from pathlib import Path

import pytest
from django.core import checks

from boilerhouse.operations.supervisor import free_port
from pools.spec import Owner
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.sinks import S3Sink, network_settings
from tests.proxies import HIDDEN_NAME, Proxy
from tests.s3 import S3Server
from tests.sink_servers import RcloneS3, SinkServer, WebDav

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

UID = 234_571


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
    assert network_settings.proxy_for(address) == proxy


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
    """Names, suffixes, addresses, networks, ports."""
    proxies.NO_PROXY = ["elsewhere.test", entry]

    assert (network_settings.proxy_for(address) == "") is is_direct


def test_rclone_gets_one_proxy_or_none(proxies):
    """rclone does not decide by its own rules."""
    proxies.NO_PROXY = ["quiet.test"]

    assert network_settings.rclone_environment("https://s3.corp.test") == {"HTTPS_PROXY": "http://proxy:3129"}
    assert network_settings.rclone_environment("http://s3.corp.test") == {"HTTP_PROXY": "http://proxy:3128"}
    assert network_settings.rclone_environment("http://quiet.test") == {}


def test_amazons_own_endpoint_is_known_by_name(proxies):
    """NO_PROXY may name it, as for a gateway endpoint of a private network."""
    sink = S3Sink("states", "eu-central-1", "")
    assert network_settings.proxy_for(sink.address) == "http://proxy:3129"

    proxies.NO_PROXY = [".amazonaws.com"]
    assert network_settings.proxy_for(sink.address) == ""


def test_without_a_bundle_of_its_own_the_systems_certificates_count(settings):
    """rclone and the client in the process get the same file."""
    settings.BOILERHOUSE_CA_BUNDLE = ""
    assert "-----BEGIN CERTIFICATE-----" in Path(network_settings.ca_bundle()).read_text()

    settings.BOILERHOUSE_CA_BUNDLE = "/etc/own.pem"
    assert network_settings.ca_bundle() == "/etc/own.pem"


class Proxied:
    """A sink whose host name only a proxy resolves."""

    def __init__(self, end: SinkServer, proxy: Proxy) -> None:
        self.end, self.proxy = end, proxy


def _s3(directory, *, tls):
    server = S3Server(directory / "s3", tls=tls, name=HIDDEN_NAME)
    server.start()
    return RcloneS3(server), server.stop


def _webdav(directory):
    end = WebDav(directory)
    end.definition["endpoint"] = end.definition["endpoint"].replace("127.0.0.1", HIDDEN_NAME)
    return end, end.stop


@pytest.fixture(params=["http", "https", "webdav"])
def proxied(request, tmp_path, settings):
    end, stop = _webdav(tmp_path) if request.param == "webdav" else _s3(tmp_path, tls=request.param == "https")
    proxy = Proxy()
    settings.HTTP_PROXY = settings.HTTPS_PROXY = proxy.url
    settings.NO_PROXY = []
    yield Proxied(end, proxy)
    stop()
    proxy.stop()


@pytest.fixture
def moved(data_dir, tmp_path):
    """Save one file with rclone in its sandbox, and restore it; returns the restored content."""
    volume, target = tmp_path / "volume", tmp_path / "target"
    for directory in (volume, target):
        directory.mkdir()
        os.chown(directory, UID, UID)
    (volume / "a b").write_text("hello")
    os.chown(volume / "a b", UID, UID)
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)

    def move(sink):
        upload = rclone.upload(sink, "t/one", [], deletes=True, inside="", backup=".boilerhouse-trash/x")
        rclone.run(upload, sink, Jail(volume, Owner(UID, UID), False), lock)
        rclone.run(rclone.download(sink, "t/one", []), sink, Jail(target, Owner(UID, UID), True), lock)
        return (target / "a b").read_text()

    yield move
    os.close(lock)


def test_every_client_goes_through_the_proxy(proxied, moved):
    """A proxy that alone resolves the endpoint's name, and requires a password."""
    sink = proxied.end.sink()
    sink.probe()
    assert moved(sink) == "hello"
    assert dict(sink.names("t/one")) == {"a b": 5}
    rclones = {"rclone", "Go-http-client"} & proxied.proxy.agents
    assert len(rclones) == 1, proxied.proxy.agents
    assert proxied.proxy.agents - rclones


def test_what_no_proxy_names_no_client_asks_through_it(proxied, moved, settings):
    """Both use the proxy, or neither does."""
    settings.NO_PROXY = [HIDDEN_NAME]
    sink = proxied.end.sink()

    with pytest.raises(errors.SinkUnreachable):
        sink.probe()
    with pytest.raises(errors.SinkUnreachable):
        moved(sink)
    assert proxied.proxy.asked == []


@pytest.fixture
def said(caplog, capfd, monkeypatch):
    """All output while sinks are queried: arguments, logs, output; ``said(ask)`` adds the error of ``ask``."""
    shown = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **more: shown.append(words) or real(words, **more))

    def failure(ask):
        with pytest.raises(errors.SinkUnreachable) as raised:
            ask()
        shown.extend([raised.value.detail, "".join(traceback.format_exception(raised.value))])
        return f"{shown}{caplog.text}{capfd.readouterr()}"

    return failure


def test_a_password_that_the_proxy_refuses_is_told_to_nobody(proxied, moved, settings, said):
    """Not in an error, a log, or arguments (P10)."""
    refused = proxied.proxy.url.replace(proxied.proxy.password, "other-pass-word")
    settings.HTTP_PROXY = settings.HTTPS_PROXY = refused
    sink = proxied.end.sink()

    for ask in (sink.probe, lambda: moved(sink)):
        assert "pass-word" not in said(ask)
    assert proxied.proxy.asked


def test_a_dead_proxys_password_is_told_to_nobody(moved, settings, said):
    """P10"""
    settings.HTTP_PROXY, settings.NO_PROXY = f"http://corp:proxy-pass-word@127.0.0.1:{free_port()}", []
    sink = S3Sink("b", "us-east-1", "", f"http://{HIDDEN_NAME}", "", "AKIDTEST", "secret")

    for ask in (sink.probe, lambda: moved(sink)):
        assert "pass-word" not in said(ask)


def found_ids():
    return {found.id for found in checks.run_checks()} & {"boilerhouse.E007", "boilerhouse.E008"}


def test_a_bundle_that_cannot_be_used_is_said_at_the_start(settings, tmp_path):
    """Missing, without certificates, or not readable by the users that rclone runs as."""
    assert not found_ids()
    good = Path(settings.BOILERHOUSE_CA_BUNDLE).read_text()
    settings.BOILERHOUSE_CA_BUNDLE = str(tmp_path / "ca.pem")
    assert found_ids() == {"boilerhouse.E007"}
    (tmp_path / "ca.pem").write_text("no certificate")
    assert found_ids() == {"boilerhouse.E007"}
    (tmp_path / "ca.pem").write_text(good)
    (tmp_path / "ca.pem").chmod(0o644)
    assert not found_ids()
    (tmp_path / "ca.pem").chmod(0o600)
    assert found_ids() == {"boilerhouse.E007"}


def test_a_proxy_that_not_every_client_can_use_is_said_at_the_start(settings):
    """B26; P10: without what it says, for that may hold a password."""
    for url in ("socks5://user:pass-word@proxy:1080", "http://"):
        settings.HTTPS_PROXY = url
        assert found_ids() == {"boilerhouse.E008"}
        assert "pass-word" not in str(checks.run_checks())
    settings.HTTPS_PROXY = "http://user:pass-word@proxy:3128"
    assert not found_ids()
