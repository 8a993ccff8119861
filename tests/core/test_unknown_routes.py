"""Every error below /api/ is a problem document, and public answers work with an invalid key (P12)."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.api_calls import problem

pytestmark = pytest.mark.any_database

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "FOO"]
NOWHERE = [
    "/api/v1/nope", "/api/v1/", "/api/v1", "/api/", "/api/v2/pools", "/api/v1/pools/", "/api/v1/pools//x", "/api/v1/health/",
    "/api/v1/health/nope", "/api/v1/tenants/a/b/c", "/api/v1/%00", "/api/v1/%ff", "/api/v1/" + "a" * 5000,
]  # fmt: skip
SOMEWHERE = [
    "/api/v1/health", "/api/v1/health/ready", "/api/v1/metrics", "/api/v1/openapi.json", "/api/v1/docs", "/api/v1/pools",
    "/api/v1/events/stream", "/api/v1/settings", "/api/v1/tenants/a/claim",
]  # fmt: skip


@pytest.fixture
def stranger(db):
    """An external client: CSRF tokens are required, and an exception is answered."""
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


def ask(stranger, method, path, **headers):
    body = "{}" if method in ("POST", "PUT", "PATCH") else ""
    return stranger.generic(method, path, body, content_type="application/json", headers=headers)


@pytest.mark.parametrize("path", NOWHERE, ids=lambda one: one[:40])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_nowhere_is_a_problem_document_for_every_method(stranger, method, path):
    """A POST was answered by the page about a missing CSRF token."""
    answer = ask(stranger, method, path)
    if method == "HEAD":
        assert answer.status_code == 404
    else:
        problem(answer, 404, "not_found")


@pytest.mark.parametrize("path", SOMEWHERE)
@pytest.mark.parametrize("method", METHODS)
def test_an_error_of_any_route_is_a_problem_document(stranger, method, path):
    answer = ask(stranger, method, path)
    if answer.status_code >= 400 and not path.endswith("ready"):
        assert answer.status_code < 500
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "given", ["Bearer bh_wrong", "Bearer ", "Bearer \u00ff", "Basic eDp5", "x", "Bearer bh_" + "a" * 4000]
)
@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/openapi.json", "/api/v1/docs", "/health"])
def test_a_wrong_key_is_ignored_where_none_is_needed(stranger, path, given):
    """A health check with a revoked key restarted a healthy process."""
    assert ask(stranger, "GET", path, Authorization=given).status_code == 200
