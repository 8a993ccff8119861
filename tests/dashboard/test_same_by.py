"""The same by curl and Python: of every action that asks, and both make the call that the page describes."""

from __future__ import annotations

import json
import shlex
import uuid
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from boilerhouse_client import Client
from django.test import RequestFactory
from django.urls import URLPattern, reverse

from boilerhouse.dashboard import api_calls
from boilerhouse.dashboard.urls import urlpatterns

ARGUMENTS = {
    "pool_id": "notes", "tenant_id": "o'neil:4 $HOME", "container_id": uuid.UUID(int=7), "spec_id": "s",
    "workload_id": "w", "key_id": "k1", "credential_id": "c", "registry_credential_id": "r", "notification_id": "n",
    "backup_id": uuid.UUID(int=8), "node_id": "host-1",
}  # fmt: skip
FIELDS = [("id", str(uuid.UUID(int=1))), ("id", str(uuid.UUID(int=2))), ("path", "/state/a%20b%2525")]


def routes() -> dict[str, URLPattern]:
    return {str(one.name): one for one in urlpatterns}


def asking() -> list[str]:
    return [name for name, route in routes().items() if getattr(route.callback, "asks", None)]


def test_every_action_that_asks_has_its_call():
    """But those on users, whom the API does not know, a release of all tenants that a list matches, and a roll back,
    which is a change of the workload."""
    without = {"release-many", "workload-roll-back"}
    assert {name for name in asking() if not name.startswith("user-")} - without == set(api_calls.CALLS)


class Caught:
    """Requests that the client would have sent: method, path below the API, body."""

    def __init__(self, client: Client) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        client.raw = self.take  # type: ignore[method-assign]

    def take(self, method: str, path: str, *, json: Any = None, params: Any = None, **_: Any) -> Any:
        force = "?force=true" if params and params.get("force") in (True, "true") else ""
        head, _, query = path.partition("?")
        self.calls.append((method, unquote(head) + (f"?{query}" if query else "") + force, json))
        return self

    content = b'{"state": null, "runs": [], "forgotten": 0}'
    status_code = 204

    def json(self) -> Any:
        return json.loads(self.content)


def of_curl(text: str) -> list[tuple[str, str, Any]]:
    """What the shell makes of the commands, which are one after another."""
    words, calls = shlex.split(text), []
    for start in [at for at, word in enumerate(words) if word == "curl"]:
        part = words[start + 1 :]
        part = part[: part.index("curl")] if "curl" in part else part
        url = urlsplit(part[2])
        body = json.loads(part[part.index("-d") + 1]) if "-d" in part else None
        assert part[:1] == ["-X"]
        assert "Authorization: Bearer $BOILERHOUSE_KEY" in part
        path = unquote(url.path).removeprefix("/api/v1/")
        calls.append((part[1], f"{path}?{url.query}" if url.query else path, body))
    return calls


@pytest.mark.parametrize("name", sorted(api_calls.CALLS))
def test_curl_and_python_make_the_same_call(name, monkeypatch):
    keys = routes()[name].pattern.converters
    kwargs = {key: ARGUMENTS[key] for key in keys}
    request = RequestFactory(headers={"Host": "bh.example.com"}).get(reverse(name, kwargs=kwargs).replace("%2F", "/"))
    request.resolver_match = type("Match", (), {"url_name": name, "kwargs": kwargs})()
    monkeypatch.setattr("django.http.request.HttpRequest.get_host", lambda _: "bh.example.com")
    spelled = api_calls.of_action(request, FIELDS)
    assert spelled
    monkeypatch.setenv("BOILERHOUSE_KEY", "k")
    place: dict[str, Any] = {}
    head, _, statements = spelled.python.partition("os.environ")
    exec(f"{head}os.environ{statements.splitlines()[0]}", place)
    caught = Caught(place["client"])
    exec("\n".join(statements.splitlines()[1:]), place)
    expected = of_curl(spelled.curl)
    assert expected
    made = [(method, path, body) for method, path, body in caught.calls]
    for (method, path, body), (expected_method, expected_path, expected_body) in zip(made, expected, strict=True):
        assert (method, path) == (expected_method, expected_path)
        assert {k: v for k, v in (body or {}).items() if v not in (None, False)} == (expected_body or {})


def test_an_action_without_a_call_shows_none():
    request = RequestFactory().get("/")
    assert api_calls.of_action(request, ()) is None


def test_a_config_is_quoted_for_the_shell_and_for_python():
    call = api_calls.claim("a", "p", {"greeting": "it's $HOME", "on": True, "none": None})
    request = RequestFactory().get("/")
    spelled = api_calls.spell(request, [call])
    [(_, _, body)] = of_curl(spelled.curl)
    assert body == call.body
    place: dict[str, Any] = {"client": type("C", (), {"claim": lambda self, *a, **k: (a, k)})()}
    exec(spelled.python.splitlines()[-1], place)
    assert place["claim"] == (("a", "p"), {"config": call.body["config"]})
