"""Images from a real registry: by digest, over a port, and with the engine's error if a pull fails."""

from __future__ import annotations

import pytest

from pools import pull_errors
from pools.errors import EngineFailure, ImageMissing
from pools.pull_errors import PullFailed, PullFault, fault_of
from pools.references import parse
from pools.runtime import get_runtime
from pools.runtime.base import RegistryLogin
from pools.runtime.docker import DockerRuntime
from tests import docker_proxy
from tests import registry as registries
from tests.make import make_spec
from tests.pulls import found_for

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.usefixtures("data_dir"), pytest.mark.slow]


@pytest.fixture
def pulled(registry):
    """Pull an image by its workload's spec; it is deleted from the engine after the test."""
    names = []

    def have(image, policy="missing"):
        names.append(image)
        return found_for(make_spec(image=image, pull_policy=policy)).image

    yield have
    for name in names:
        registries.forget(name)


@pytest.mark.parametrize("policy", ["missing", "always"])
@pytest.mark.parametrize("form", ["{host}/dg@{digest}", "{host}/dg:1@{digest}", "{host}/dg:other@{digest}"])
def test_an_image_by_digest_is_pulled(registry, pulled, form, policy):
    """By digest, from a registry with a port, whatever the tag; and found again without a pull."""
    image = form.format(host=registry.host, digest=registry.put("dg"))

    found = pulled(image, policy)

    assert found == get_runtime().find_image(image)
    registry.stop()
    try:
        assert pulled(image, policy) == found
        assert pulled(image, "never") == found
    finally:
        registry.start()


def test_an_image_by_tag_at_a_port_is_pulled(registry, pulled):
    registry.put("tagged", tag="v1.2")

    assert pulled(f"{registry.host}/tagged:v1.2").id


def test_a_registry_that_lost_a_layer_is_named_as_such(registry, pulled):
    """An error inside the stream of a 200 is reported with the engine's text and the remedy."""
    registry.lose_layers("lost", registry.put("lost", size=100_000))

    with pytest.raises(PullFailed, match=r"unknown blob|could not fetch content descriptor") as caught:
        pulled(f"{registry.host}/lost:1")

    assert caught.value.fault == PullFault.LOST_LAYER
    assert "Push the image again" in caught.value.detail


def test_a_tag_that_is_not_there_is_said(registry, pulled):
    with pytest.raises(PullFailed, match=r"manifest unknown|: not found") as caught:
        pulled(f"{registry.host}/nothing:1")

    assert caught.value.fault == PullFault.NOT_FOUND


def test_a_registry_that_cannot_be_reached_is_said(registry, pulled):
    with pytest.raises(PullFailed, match="connection refused") as caught:
        pulled("127.0.0.1:9/a:1")

    assert caught.value.fault == PullFault.UNREACHABLE


def test_an_image_for_another_platform_is_said(registry, pulled):
    registry.put_for_another_platform("arm")

    with pytest.raises(PullFailed, match="no matching manifest for linux/") as caught:
        pulled(f"{registry.host}/arm:1")

    assert caught.value.fault == PullFault.NO_PLATFORM


def test_a_line_that_is_cut_again_and_again_still_brings_the_image(registry, pulled):
    """The engine continues where the connection was cut."""
    registry.put("cut", size=300_000)
    line = registry.line(cut_after=200_000)

    assert pulled(f"{line.host}/cut:1").id
    assert line.connections > 1


def test_what_may_not_be_pulled_is_said(pulled):
    with pytest.raises(ImageMissing, match="pullPolicy is never"):
        pulled("127.0.0.1:9/a:1", "never")
    with pytest.raises(ImageMissing, match="an id cannot be pulled"):
        pulled("sha256:" + "0" * 64, "always")


WORDS = [
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", PullFault.NO_SPACE),
    ("no matching manifest for linux/amd64 in the manifest list entries", PullFault.NO_PLATFORM),
    ('Get "https://r.example/v2/": no basic auth credentials', PullFault.UNAUTHORIZED),
    ("pull access denied for x, repository does not exist or may require 'docker login'", PullFault.UNAUTHORIZED),
    ('Get "https://r.example/v2/": unauthorized: incorrect username or password', PullFault.UNAUTHORIZED),
    ("manifest for r.example/a:1 not found: manifest unknown: manifest unknown", PullFault.NOT_FOUND),
    ("failed to resolve reference r.example/a:1: r.example/a:1: not found", PullFault.NOT_FOUND),
    ('Get "https://r.example/v2/": x509: certificate signed by unknown authority', PullFault.TLS),
    ('Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client', PullFault.TLS),
    ('Get "https://r.example/v2/": net/http: TLS handshake timeout', PullFault.TIMEOUT),
    ('Get "https://r.example/v2/": net/http: request canceled (Client.Timeout exceeded)', PullFault.TIMEOUT),
    ("toomanyrequests: You have reached your pull rate limit", PullFault.THROTTLED),
    ("dial tcp: lookup r.example on 10.0.0.2:53: no such host", PullFault.UNREACHABLE),
    ("received unexpected HTTP status: 503 Service Unavailable", PullFault.UNREACHABLE),
    ("filesystem layer verification failed for digest sha256:ab", PullFault.CORRUPT),
    ("something nobody has seen", PullFault.OTHER),
]  # fmt: skip


@pytest.mark.parametrize(("words", "fault"), WORDS)
def test_the_engines_words_are_kept_and_told_apart(words, fault):
    """Each with the remedy if it is known."""
    error = pull_errors.pull_failed(parse("r.example/a:1"), words)

    assert fault_of(words) == error.fault == fault
    assert words in error.detail
    assert (error.detail.rstrip(".").endswith(words)) == (fault == PullFault.OTHER)


def test_signed_addresses_and_logins_are_not_repeated():
    words = 'Get "https://u:secret@store.example/blob?X-Amz-Signature=secret": dial tcp: i/o timeout'

    assert "secret" not in pull_errors.pull_failed(parse("a"), words).detail


def test_a_registry_that_says_a_lot_is_not_read_to_its_end():
    """Matching 400 kB from a registry took 19 seconds (P14)."""
    assert fault_of("manifest for " + "x" * 3000 + " not found") == PullFault.NOT_FOUND
    assert fault_of("manifest for " + "x" * pull_errors.MAX_WORDS + " not found") == PullFault.OTHER


def test_the_proxy_before_the_socket_lets_digests_through(registry, pulled, tmp_path):
    """Pulls, queries and logins go through the worker's socket, and the result is visible through the web process's."""
    image = f"{registry.host}/proxied:1@{registry.put('proxied')}"
    with docker_proxy.running(tmp_path, tmp_path) as sockets:
        worker, web = (DockerRuntime(sockets.url(one)) for one in ("worker", "web"))
        list(worker.pull(parse(image)))

        assert web.find_image(image) == pulled(image, "never")
        assert worker.named_digest(parse(f"{registry.host}/proxied:1")) == parse(image).digest
        worker.log_in(registry.host, RegistryLogin("", "x"))
        with pytest.raises(EngineFailure, match="Docker socket proxy"):
            web.log_in(registry.host, RegistryLogin("", "x"))
