"""The syntax of a network policy, and when one policy is within another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from boilerhouse.core.errors import Invalid
from boilerhouse.core.models import AuditEntry
from pools import checks, services
from pools.egress import BadEntry, Egress, Entry
from pools.models import Pool
from pools.spec import Security
from tests.make import make_pool, make_workload


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.5.7:5432", "10.0.5.7:5432"), ("192.0.2.0/24", "192.0.2.0/24"), ("192.0.2.0/24:80", "192.0.2.0/24:80"),
        ("2001:DB8:0::1", "2001:db8::1"), ("[2001:db8::1]:443", "[2001:db8::1]:443"), ("2000::/3", "2000::/3"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"), ("[2001:db8::1/128]:1", "[2001:db8::1]:1"), ("fd12::/16", "fd12::/16"),
        ("10.0.5.7/32", "10.0.5.7"), ("API.Example.com.:443", "api.example.com:443"), ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
    ],
)  # fmt: skip
def test_entries_have_one_spelling(text, spelling):
    assert str(Entry.parse(text)) == spelling


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "10.0.0.1/8", "10.0.0.0/7", "0.0.0.0/0", "10.0.0.256", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:x",
        "10.0.0.1:", "::1", "::/0", "2000::/2", "[2001:db8::1]", "[2001:db8::1]:0", "2001:db8::1:", "2001:db8::1/32", "[10.0.0.1]:80",
        "::ffff:10.0.0.1", "::ffff:0:0/96", "64:ff9b::a00:1", "2002:a00:1::1", "2001::1", "fe80::1", "fe80::1%eth0", "ff02::1",
        "fd00:ec2::254", "[fd00:ec2::254]:80", "fd20:ce::254", "fec0::1", "2001:db8::1 ", "[2001:db8::1]:80 }", "example.com", "example.com:", "localhost:80",
        "*.example.com:443", "exa_mple.com:80", "-a.example:1", "1.2.3.400:80", "127.0.0.1", "127.0.0.0/8", "169.254.169.254:80",
        "169.254.0.0/16", "224.0.0.1", "0.0.0.0", "240.0.0.0/8", "100.100.100.200", "168.63.129.16:80", "10.0.0.0/255.0.0.0",
        "10.0.0.1\n", "10.0.0.1:80:80", "example.com:٤٤٣", "a" * 64 + ".example:1", "010.0.0.1", "10.1:80", "a b.example:1",
        "http://example.com:80", "example.com/24:80",
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(text):
    """The text reaches a program that changes the kernel's packet filter, so only these forms are accepted."""
    with pytest.raises(BadEntry):
        Entry.parse(text)


def policy(mode: str, *allow: str) -> Egress:
    return Egress.from_json({"mode": mode, "allow": list(allow)})


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (policy("none"), policy("none")), (policy("none"), policy("list")), (policy("list"), policy("internet")),
        (policy("list", "192.0.2.1:80"), policy("list", "192.0.2.0/24")),
        (policy("list", "192.0.2.1:80"), policy("list", "192.0.2.0/24:80")),
        (policy("list", "a.example:443"), policy("list", "a.example:443")),
        (policy("list", "a.example:443", "192.0.2.0/24"), policy("internet")),
        (policy("list", "10.1.2.3:5432"), policy("internet", "10.1.2.0/24")),
        (policy("internet", "10.1.2.3"), policy("internet", "10.1.2.0/24")),
        (policy("internet", "10.1.2.3"), policy("open")), (policy("open"), policy("open")),
        (policy("list", "[2001:db8::1]:80", "192.0.2.1"), policy("internet", "2000::/3")),
        (policy("list", "fd12::1"), policy("open")),
    ],
)  # fmt: skip
def test_what_is_within(inner, outer):
    assert inner.wider_than(outer) == []


@pytest.mark.parametrize(
    ("inner", "outer", "pointer"),
    [
        (policy("list"), policy("none"), "/mode"), (policy("internet"), policy("list", "192.0.2.0/24"), "/mode"),
        (policy("open"), policy("internet"), "/mode"),
        (policy("list", "192.0.2.1", "192.0.3.0/24"), policy("list", "192.0.2.0/24"), "/allow/1"),
        (policy("list", "192.0.2.1"), policy("list", "192.0.2.1:80"), "/allow/0"),
        (policy("list", "192.0.2.1:81"), policy("list", "192.0.2.0/24:80"), "/allow/0"),
        (policy("list", "192.0.2.0/23"), policy("list", "192.0.2.0/24"), "/allow/0"),
        (policy("list", "b.example:443"), policy("list", "a.example:443"), "/allow/0"),
        (policy("list", "a.example:443"), policy("list", "192.0.2.0/24"), "/allow/0"),
        (policy("list", "10.1.2.3"), policy("internet"), "/allow/0"),
        (policy("list", "8.0.0.0/8", "172.0.0.0/8"), policy("internet"), "/allow/1"),
        (policy("internet", "10.1.3.3"), policy("internet", "10.1.2.0/24"), "/allow/0"),
        (policy("list", "2001:db8::1"), policy("internet"), "/allow/0"),
        (policy("list", "2001:db8::1", "fd12::1"), policy("internet", "2000::/3"), "/allow/1"),
        (policy("list", "10.0.0.1"), policy("list", "2000::/3"), "/allow/0"),
    ],
)  # fmt: skip
def test_what_is_wider(inner, outer, pointer):
    assert [one.pointer for one in inner.wider_than(outer)] == [pointer]


def put(call, pool: Pool, **network):
    return call("PUT", f"pools/{pool.pk}", {"id": pool.pk, "workloadId": pool.workload_id, "network": network})


@pytest.mark.parametrize(
    ("egress", "pointer"),
    [
        ({"mode": "all"}, "/network/egress/mode"), ({"mode": "open"}, "/network/egress/mode"),
        ({"mode": "none", "allow": ["192.0.2.1"]}, "/network/egress/allow"),
        ({"mode": "internet", "allow": ["10.0.0.1", "a.example:443"]}, "/network/egress/allow/1"),
        ({"mode": "list", "allow": ["10.0.0.1", "10.0.0.1/8"]}, "/network/egress/allow/1"),
        ({"mode": "list", "allow": ["10.0.0.1"] * 65}, "/network/egress/allow"),
        ({"mode": "list", "deny": []}, "/network/egress/deny"), ("internet", "/network/egress"),
        ({"mode": "list", "allow": [{}]}, "/network/egress/allow/0"),
    ],
)  # fmt: skip
def test_a_pools_policy_that_cannot_be_is_refused_and_nothing_changes(call, egress, pointer):
    pool = make_pool()
    answer = put(call, pool, egress=egress)

    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    pool.refresh_from_db()
    assert pool.egress is None


def test_a_pools_policy_is_shown_audited_and_rolls_nothing(call):
    pool = make_pool(workload=make_workload())
    wanted = pool.newest_template
    shown = put(call, pool, egress={"allow": ["10.0.5.7:5432", "10.0.5.7/32:5432"]}, dns=["192.0.2.53"]).json()

    assert shown["network"] == {"dns": ["192.0.2.53"], "egress": {"mode": "internet", "allow": ["10.0.5.7:5432"]}}
    put(call, pool, egress={"mode": "list", "allow": ["a.example:443"]}, dns=["192.0.2.53"])
    pool.refresh_from_db()
    assert pool.network == {"dns": ["192.0.2.53"]}
    assert pool.newest_template.version_id == wanted.version_id
    assert pool.egress == {"mode": "list", "allow": ["a.example:443"]}
    entry = AuditEntry.objects.filter(action="pool.update").order_by("-id").first()
    assert entry.before["egress"] == {"mode": "internet", "allow": ["10.0.5.7:5432"]}
    again = call("PUT", f"pools/{pool.pk}", call("GET", f"pools/{pool.pk}").json())
    assert again.json()["network"] == {"dns": ["192.0.2.53"], "egress": pool.egress}
    assert put(call, pool).json()["network"] is None


def test_everything_may_be_opened_only_where_the_deployment_says_so(call, settings):
    pool = make_pool()
    settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = True

    assert put(call, pool, egress={"mode": "open"}).status_code == 200
    settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = False
    assert put(call, pool, egress={"mode": "open"}).status_code == 422


def test_ipv6_is_named_only_where_containers_have_it(call, settings):
    """Refused with a reason, and a warning where the deployment's settings have changed since."""
    pool = make_pool()
    body = {"mode": "list", "allow": ["192.0.2.1", "[2001:db8::1]:443"]}
    (error,) = put(call, pool, egress=body).json()["errors"]
    assert (error["pointer"], error["code"]) == ("/network/egress/allow/1", "no_ipv6")
    assert "BOILERHOUSE_IPV6_SUBNET" in error["detail"]
    settings.BOILERHOUSE_IPV6_SUBNET = "fd12:3456::/64"
    assert put(call, pool, egress=body).status_code == 200
    assert call("GET", f"pools/{pool.pk}").json()["status"]["warnings"] == []
    settings.BOILERHOUSE_IPV6_SUBNET = ""
    (warning,) = call("GET", f"pools/{pool.pk}").json()["status"]["warnings"]
    assert warning["code"] == "no_ipv6"
    assert warning["detail"].startswith("[2001:db8::1]:443 is closed")


@pytest.mark.parametrize("text", ["fd12::/16", "fd12::1/64", "fd12::/97", "FD12::/64", "10.0.0.0/8", "fe80::/64", "x"])
def test_a_subnet_that_containers_cannot_be_in_is_found_at_start(settings, text):
    settings.BOILERHOUSE_IPV6_SUBNET = text
    assert [one.id for one in checks.workload_permits()] == ["boilerhouse.E023"]
    settings.BOILERHOUSE_IPV6_SUBNET = "2001:db8:7::/64"
    assert checks.workload_permits() == []


def test_a_policy_that_nothing_would_enforce_is_refused(call, settings):
    """On the host's network, or a foreign one, packets are not filtered, so a policy is refused."""
    settings.BOILERHOUSE_ALLOW_HOST_NETWORK = True
    elsewhere = make_pool(workload=make_workload(security={"network_mode": "host"}))
    (error,) = put(call, elsewhere, egress={"mode": "none"}).json()["errors"]
    assert (error["pointer"], error["code"]) == ("/network/egress", "not_enforced")

    pool = make_pool(egress={"mode": "none", "allow": []})
    spec = replace(pool.workload.latest.spec, security=Security(network_mode="host"))
    with pytest.raises(Invalid) as refused:
        services.update_workload(pool.workload, name="n", spec=spec)
    assert [one.pointer for one in refused.value.errors] == ["/security/networkMode"]
    assert pool.pk in refused.value.errors[0].detail
