"""The gateway with a real nginx: whom a request reaches, what the container receives, and who may ask. Servers of this
process stand in for containers."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from boilerhouse.core import api_keys
from boilerhouse.core.models import AuditEntry, Role
from pools.models import Container
from pools.states import ContainerState
from tenants.gateway import hosts, passes, route_server
from tenants.gateway.hosts import Place
from tenants.models import Assignment, Tenant, next_generation
from tenants.states import AssignmentState
from tests.api_calls import Call, problem
from tests.gateway import RunningGateway, echo
from tests.make import make_container, make_held, make_pool, make_workload

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.any_database]
PORTS = [
    {"name": "private", "container_port": 8080},
    {"name": "public", "container_port": 8081, "access": "public"},
    {"name": "internal", "container_port": 8082, "access": "internal"},
    {"name": "udp", "container_port": 8083, "protocol": "udp", "access": "public"},
]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    running = RunningGateway(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def ports() -> Iterator[list[Any]]:
    servers = [echo("127.0.0.41", "alice"), echo("127.0.0.41", "alice", 8081), echo("127.0.0.42", "bob")]
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def held(tenant: str, address: str) -> str:
    """The tenant holds a container at this address. Returns its label."""
    pool = make_pool(workload=make_workload(ports=PORTS))
    container = make_container(pool, state=ContainerState.CLAIMED, address=address)
    make_held(tenant=tenant, container=container)
    Tenant.objects.filter(pk=tenant, host_label=None).update(host_label=hosts.new_label())
    return str(Tenant.objects.get(pk=tenant).host_label)


def host(label: str, port: int = 8080) -> str:
    return hosts.name_of(Place(port, label), "localhost")


def key_of(role: Role, *tenants: str) -> str:
    return api_keys.create_key(name="k", role=role, tenant_ids=list(tenants))[1]


def link(label: str, key_id: str, lasts: int = 60, port: int = 8080) -> str:
    return passes.sign(passes.Pass(passes.Role.LINK, port, label, int(time.time()) + lasts, key_id))


def test_ports_are_private_public_or_internal(gateway: RunningGateway, ports: list[Any]) -> None:
    label = held("alice", "127.0.0.41")
    assert gateway.ask(host(label)).status == 401
    assert gateway.ask(host(label), X_Boilerhouse_Key=key_of(Role.TENANT, "alice")).json["name"] == "alice"
    assert gateway.ask(host(label), X_Boilerhouse_Key=key_of(Role.OPERATOR)).status == 200
    assert gateway.ask(host(label), X_Boilerhouse_Key=key_of(Role.TENANT, "bob")).status == 403
    assert gateway.ask(host(label), X_Boilerhouse_Key=key_of(Role.VIEWER)).status == 403
    assert gateway.ask(host(label, 8081)).json["name"] == "alice"
    admin = key_of(Role.ADMIN)
    for port in (8082, 8083, 8084, 65535):
        refused = gateway.ask(host(label, port), X_Boilerhouse_Key=admin)
        assert (refused.status, refused.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "8080-{}.example.com", "08080-{}.localhost", "99999-{}.localhost", "{}.localhost",
             "8080-{}.localhost.example.com", "x.8080-{}.localhost", "8080-aaaaaaaaaaaaaaaaaaaa.localhost"],
)  # fmt: skip
def test_other_hosts_are_not_found(gateway: RunningGateway, ports: list[Any], name: str) -> None:
    label = held("alice", "127.0.0.41")
    refused = gateway.ask(name.format(label), X_Boilerhouse_Key=key_of(Role.ADMIN))
    assert (refused.status, refused.json["code"]) == (404, "not_found")


def test_the_container_gets_no_credential_and_no_forged_address(gateway: RunningGateway, ports: list[Any]) -> None:
    label, key = held("alice", "127.0.0.41"), key_of(Role.TENANT, "alice")
    opened = gateway.ask(host(label), f"/.boilerhouse/open?token={link(label, key[3:11])}")
    assert (opened.status, opened.headers["Location"]) == (303, "/")
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "Domain" not in cookie
    mine = cookie.partition(";")[0]
    for sent, seen in (
        (mine, None), (f"a=1; {mine}; b=2", "a=1; b=2"), (f"{mine}; {mine}; a=1", "a=1"), (f"a=1;{mine}", "a=1"),
        (f"{mine}; {mine}; {mine}; a=1", None), (f"xbh_gateway=1; {mine}", "xbh_gateway=1"),
    ):  # fmt: skip
        answer = gateway.ask(
            host(label), Cookie=sent, X_Boilerhouse_Key="", X_Forwarded_For="9.9.9.9", Forwarded="for=9.9.9.9",
            X_Real_IP="9.9.9.9", X_Forwarded_Proto="https", Authorization="Basic abc",
        )  # fmt: skip
        assert answer.status == 200, sent
        assert answer.heard.get("cookie") == seen
        assert key not in str(answer.heard)
        assert mine.partition("=")[2] not in str(answer.heard)
        assert answer.heard["x-forwarded-for"] == "127.0.0.1"
        assert answer.heard["x-forwarded-proto"] == "http"
        assert not {"forwarded", "x-real-ip", "x-boilerhouse-key"} & answer.heard.keys()
        assert answer.heard["authorization"] == "Basic abc"
        assert answer.heard["host"] == f"{host(label)}:{gateway.port}"
    assert key not in str(gateway.ask(host(label), X_Boilerhouse_Key=key).heard)


def test_a_question_that_fails_unexpectedly_ends_no_thread(
    gateway: RunningGateway, ports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    label, key = held("alice", "127.0.0.41"), key_of(Role.ADMIN)
    with monkeypatch.context() as broken:
        broken.setattr(route_server.routes, "decide", lambda *_: {}["missing"])
        for _ in range(2 * route_server.THREADS):
            assert gateway.ask(host(label), X_Boilerhouse_Key=key).status == 503
    assert gateway.ask(host(label), X_Boilerhouse_Key=key).status == 200


def test_a_pass_is_for_one_host_one_role_and_one_time(gateway: RunningGateway, ports: list[Any]) -> None:
    label, other = held("alice", "127.0.0.41"), held("bob", "127.0.0.42")
    key = key_of(Role.OPERATOR)
    text = link(label, key[3:11])
    opened = f"/.boilerhouse/open?token={text}"
    assert gateway.ask(host(other), opened).status == 401
    assert gateway.ask(host(label, 8081), opened).status == 401
    assert gateway.ask(host(label), f"{opened}x").status == 401
    assert gateway.ask(host(label), f"/.boilerhouse/open?token={link(label, key[3:11], -1)}").status == 401
    assert gateway.ask(host(label), Cookie=f"bh_gateway={text}").status == 401
    cookie = gateway.ask(host(label), opened).headers["Set-Cookie"].partition(";")[0]
    assert gateway.ask(host(label), Cookie=cookie).json["name"] == "alice"
    assert gateway.ask(host(other), Cookie=cookie).status == 401
    api_keys.revoke_key(key[3:11])
    time.sleep(5.05)
    assert gateway.ask(host(label), Cookie=cookie).status == 401
    assert gateway.ask(host(label), opened).status == 401


def test_links_of_the_api(gateway: RunningGateway, ports: list[Any], call: Call, settings: Any) -> None:
    settings.BOILERHOUSE_GATEWAY_PORT = gateway.port
    label, key = held("alice", "127.0.0.41"), key_of(Role.TENANT, "alice")
    made = call("POST", "tenants/alice/ports/8080/links", key=key)
    assert made.status_code == 201, made.content
    origin, _, path = made.json()["url"].partition("/.boilerhouse")
    assert origin == f"http://{host(label)}:{gateway.port}"
    cookie = gateway.ask(host(label), f"/.boilerhouse{path}").headers["Set-Cookie"].partition(";")[0]
    assert gateway.ask(host(label), Cookie=cookie).json["name"] == "alice"
    assert AuditEntry.objects.filter(action="tenant.port_link", object_id="alice").exists()
    assert path not in str(list(AuditEntry.objects.values_list("after", flat=True)))
    for port in ("8082", "8083", "8084", "0", "x", "²", "999999", "-1"):
        problem(call("POST", f"tenants/alice/ports/{port}/links"), 404, "port_not_found")
    problem(call("POST", "tenants/bob/ports/8080/links"), 409, "not_assigned")
    settings.BOILERHOUSE_GATEWAY_PORT = 0
    problem(call("POST", "tenants/alice/ports/8080/links"), 409, "gateway_off")


def test_a_tenant_of_an_earlier_version_gets_its_label_with_its_first_link(call: Call) -> None:
    held("alice", "127.0.0.41")
    Tenant.objects.update(host_label=None)
    first, second = (call("POST", "tenants/alice/ports/8080/links").json()["url"] for _ in range(2))
    label = Tenant.objects.get(pk="alice").host_label
    assert label
    assert f"8080-{label}." in first
    assert f"8080-{label}." in second


def test_public_urls_of_status_and_container(call: Call, settings: Any) -> None:
    settings.BOILERHOUSE_GATEWAY_DOMAIN = "apps.example.com"
    label = held("alice", "127.0.0.41")
    container = Container.objects.get()
    Assignment.objects.update(endpoints=container.endpoints())

    def shown() -> list[dict[str, Any]]:
        return [{one["name"]: one.get("publicUrl") for one in call("GET", path).json()["endpoints"]}
                for path in ("tenants/alice/status", f"containers/{container.pk}")]  # fmt: skip

    for is_https, port, ending in ((False, 8081, ":8081"), (True, 443, ""), (False, 80, ""), (True, 8443, ":8443")):
        settings.BOILERHOUSE_GATEWAY_HTTPS, settings.BOILERHOUSE_GATEWAY_PORT = is_https, port
        begins = "https" if is_https else "http"
        urls = {name: f"{begins}://{number}-{label}.apps.example.com{ending}/"
                for name, number in (("private", 8080), ("public", 8081))}  # fmt: skip
        assert shown() == [{**urls, "internal": None, "udp": None}] * 2
    settings.BOILERHOUSE_GATEWAY_PORT = 0
    assert shown() == [dict.fromkeys(("private", "public", "internal", "udp"))] * 2
    Assignment.objects.update(state=AssignmentState.ENDED)
    assert call("GET", "tenants/alice/status").json()["endpoints"] == []


def test_what_the_container_answers_does_not_steer_the_gateway(gateway: RunningGateway, ports: list[Any]) -> None:
    label = held("alice", "127.0.0.41")
    for path in ("/.boilerhouse/route", "/other"):
        steered = gateway.ask(host(label, 8081), X_Answer_Header=f"X-Accel-Redirect={path}")
        assert (steered.status, steered.json["name"]) == (200, "alice")
    for status in (401, 403, 500, 502):
        assert gateway.ask(host(label, 8081), X_Answer_Status=str(status)).json["name"] == "alice"
    for domain in ("localhost", ".localhost", "LOCALHOST"):
        for spelled in ("Domain=", "domain =", "DOMAIN= "):
            kept = gateway.ask(host(label, 8081), X_Answer_Header=f"Set-Cookie=a=b; {spelled}{domain}; Path=/")
            named = [part.partition("=")[2].strip() for part in kept.headers.get("Set-Cookie", "").split(";")
                     if part.strip().lower().startswith("domain")]  # fmt: skip
            assert named in ([], [host(label, 8081)]), (spelled, domain)


def test_forged_and_smuggled_requests(gateway: RunningGateway, ports: list[Any]) -> None:
    label, other = held("alice", "127.0.0.41"), held("bob", "127.0.0.42")
    mine, theirs = host(label, 8081).encode(), host(other).encode()
    absolute = gateway.raw(b"GET http://", mine, b"/ HTTP/1.1\r\nHost: ", theirs, b"\r\nConnection: close\r\n\r\n")
    assert absolute.startswith(b"HTTP/1.1 400")
    twice = gateway.raw(b"GET / HTTP/1.1\r\nHost: ", mine, b"\r\nHost: ", theirs, b"\r\nConnection: close\r\n\r\n")
    assert twice.startswith(b"HTTP/1.1 400")
    inner = b"GET /smuggled HTTP/1.1\r\nHost: " + theirs + b"\r\n\r\n"
    both = gateway.raw(
        b"POST / HTTP/1.1\r\nHost: ",
        mine,
        b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        inner,
    )
    assert both.startswith(b"HTTP/1.1 400")
    assert b"smuggled" not in both
    flood = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 4000) for number in range(100))
    assert gateway.raw(b"GET / HTTP/1.1\r\nHost: ", mine, b"\r\n", flood, b"\r\n").startswith(b"HTTP/1.1 400")
    for path in ("/.boilerhouse/route", "/.boilerhouse/", "/%2eboilerhouse/route", "/a/../.boilerhouse/route"):
        assert gateway.ask(mine.decode(), path).status == 404


def test_refusals_by_accept(gateway: RunningGateway) -> None:
    label = held("alice", "127.0.0.43")
    nobody = gateway.ask(host(label, 8081))
    assert (nobody.status, nobody.json["code"]) == (502, "nobody_listens")
    page = gateway.ask(host(label), Accept="text/html")
    assert page.status == 401
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    Assignment.objects.update(state=AssignmentState.ENDED)
    time.sleep(2.05)
    gone = gateway.ask(host(label))
    assert (gone.status, gone.json["code"]) == (503, "not_running")
    assert gone.headers["Retry-After"]


def test_without_the_web_process_clients_are_told_to_ask_again(gateway: RunningGateway, ports: list[Any]) -> None:
    label = held("alice", "127.0.0.41")
    (gateway.directory / "route.sock").rename(gateway.directory / "gone.sock")
    away = gateway.ask(host(label, 8081))
    assert (away.status, away.json["code"], away.headers["Retry-After"]) == (503, "unavailable", "1")


def listener(address: str) -> socket.socket:
    made = socket.create_server((address, 8081))
    made.settimeout(10)
    return made


def head_of(connection: socket.socket) -> bytes:
    """The request's head and what came with it."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65_536)
    return text


def test_streams_are_passed_on_as_they_come(gateway: RunningGateway) -> None:
    """Each side waits for the other's bytes before it sends the next: nothing may be kept back."""
    label = held("alice", "127.0.0.44")
    with listener("127.0.0.44") as container, socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
        head = f"POST /up HTTP/1.1\r\nHost: {host(label, 8081)}\r\nContent-Length: 20\r\n\r\n"
        client.sendall(head.encode() + b"0123456789")
        served, _ = container.accept()
        with served:
            served.settimeout(10)
            heard = head_of(served)
            while not heard.endswith(b"0123456789"):
                heard += served.recv(100)
            client.sendall(b"abcdefghij")
            while not heard.endswith(b"abcdefghij"):
                heard += served.recv(100)
            served.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            answer = head_of(client)
            for number in range(3):
                event = b"data: %d\n\n" % number
                served.sendall(event)
                while event not in answer:
                    answer += client.recv(65_536)


def test_websockets_both_ways_and_their_end(gateway: RunningGateway) -> None:
    label, key = held("alice", "127.0.0.45"), key_of(Role.TENANT, "alice")
    seen: list[Any] = []

    def answer(connection: ServerConnection) -> None:
        seen.append(dict(connection.request.headers.raw_items()) if connection.request else {})
        for message in connection:
            connection.send(message)
            if message == "end":
                return

    with serve(answer, "127.0.0.45", 8080) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = {"X-Boilerhouse-Key": key}
        with connect(
            f"ws://{host(label)}/", sock=socket.create_connection(("127.0.0.1", gateway.port)), additional_headers=shown
        ) as client:
            for message in ("hello", b"x" * 1_000_000, "end"):
                client.send(message)
                assert client.recv(timeout=20) == message
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=20)
        server.shutdown()
    assert key not in str(seen)
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{host(label)}/", sock=socket.create_connection(("127.0.0.1", gateway.port)))
    assert refused.value.response.status_code == 401


def test_a_label_is_made_once() -> None:
    next_generation("carol")
    label = Tenant.objects.get(pk="carol").host_label
    assert label is not None
    assert hosts.place_of(f"80-{label}.localhost", "localhost") == Place(80, label)
    next_generation("carol")
    assert Tenant.objects.get(pk="carol").host_label == label
    Tenant.objects.filter(pk="carol").update(host_label=None)
    next_generation("carol")
    assert Tenant.objects.get(pk="carol").host_label not in (None, label)


def test_requests_reach_the_tenant_that_holds_the_container_or_nobody(gateway: RunningGateway) -> None:
    """Tenants let go and take containers of new addresses while requests run."""
    tenants = [f"t{number}" for number in range(6)]
    places = [f"127.0.1.{number}" for number in range(1, 120)]
    labels = {tenant: held(tenant, f"127.0.2.{number}") for number, tenant in enumerate(tenants, 1)}
    servers = {tenant: echo(f"127.0.2.{number}", tenant, 8081) for number, tenant in enumerate(tenants, 1)}
    over = threading.Event()
    wrong: list[str] = []
    right: list[str] = []

    def ask(seed: int) -> None:
        choose = random.Random(seed)
        while not over.is_set():
            tenant = choose.choice(tenants)
            answer = gateway.ask(host(labels[tenant], 8081))
            if answer.status == 200:
                (right if answer.json["name"] == tenant else wrong).append(tenant)

    clients = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for client in clients:
        client.start()
    moved = random.Random(1)
    for address in places[:30]:
        tenant = moved.choice(tenants)
        servers[tenant].shutdown()
        servers[tenant].server_close()
        Assignment.objects.filter(tenant_id=tenant).update(state=AssignmentState.ENDED)
        Container.objects.filter(assignments__tenant_id=tenant).update(state=ContainerState.REMOVING)
        servers[tenant] = echo(address, tenant, 8081)
        held(tenant, address)
        time.sleep(0.2)
    over.set()
    for client in clients:
        client.join()
    for server in servers.values():
        server.shutdown()
        server.server_close()
    assert right
    assert not wrong
