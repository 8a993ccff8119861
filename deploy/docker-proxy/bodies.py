"""What may stand in the body of a call: the shapes that Boilerhouse uses, and nothing else.

A body is read, compared and written anew, for the engine reads JSON in its own way: names in any case, the last of two.
What is not named here may only be empty, and is left out.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from refusing import Refused

OURS = "bh-[A-Za-z0-9_.-]{1,100}"
NEVER_RUN = ("bh-accounts-", "bh-probe-")
"""Containers that are only looked into, or only made: they may lack what those that run must have."""
OUR_LABEL = re.compile(r"boilerhouse\.(deployment|trial)")
DEPLOYMENT = "[0-9a-f]{8,16}"
NETWORK = re.compile(f"boilerhouse-{DEPLOYMENT}")
PROFILE = Path(__file__).resolve().parents[2] / "pools" / "runtime" / "seccomp.json"
NO_NEW_PRIVILEGES = "no-new-privileges=true"

Check = Callable[[Any], bool]
Shape = Mapping[str, Check]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What this deployment allows; named as its settings are, without BOILERHOUSE_."""

    directories: tuple[str, ...] = ("/var/lib/boilerhouse", "/run/boilerhouse")
    """Below these lies whatever is mounted: DATA_DIR and RAM_DIR."""
    networks: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ("runc",)
    host_network: bool = False
    root: bool = False


def read(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises Refused for what is none, or may be read in two ways."""
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused("its body is not JSON") from error
    if not isinstance(found, dict):
        raise Refused("its body is not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = {name.casefold() for name, _ in pairs}
    if len(names) != len(pairs):
        raise Refused("its body names something twice")
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise Refused(f"its body has {text}")


# Shapes ------------------------------------------------------------------------------------------------


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {}) or (value == 0 and not isinstance(value, bool))


def fitting(value: Any, shape: Shape, where: str = "") -> dict[str, Any]:
    """What of ``value`` is in the shape. Raises Refused for anything else that is not empty."""
    if not isinstance(value, dict):
        raise Refused(f"{where or 'its body'} is not an object")
    for name, one in value.items():
        if not _is_empty(one) and not shape.get(name, _is_empty)(one):
            raise Refused(f"{where}{name[:60]!r} is not what Boilerhouse asks for")
    return {name: one for name, one in value.items() if name in shape}


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value)) and all(map(_text, value.values()))


def _same(*values: Any) -> Check:
    return lambda value: value in values


def _like(pattern: str) -> Check:
    return lambda value: _text(value) and re.fullmatch(pattern, value) is not None


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _object(shape: Shape) -> Check:
    """An object of that shape, in which even what is empty must be named by it."""

    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            name in shape and (_is_empty(one) or shape[name](one)) for name, one in value.items()
        )

    return fits


_HEALTH = _object({"Test": _texts, "Interval": _count, "Timeout": _count, "Retries": _count, "StartPeriod": _count})
_LIMIT = _object({"Name": _text, "Soft": _count, "Hard": _count})
_LOG = _object({"Type": _same("json-file"), "Config": _object({"max-size": _text, "max-file": _text})})
_GPUS = _object(
    {"Count": _count, "DeviceIDs": _texts, "Capabilities": _each(_each(_same("gpu"))), "Driver": _is_empty,
     "Options": _is_empty}
)  # fmt: skip


def _is_loopback(value: Any) -> bool:
    try:
        return ipaddress.ip_address(value).is_loopback
    except ValueError:
        return False


def _ports(value: Any) -> bool:
    bound = _each(_object({"HostIp": _is_loopback, "HostPort": _like("[0-9]{1,5}")}))
    return isinstance(value, dict) and all(
        re.fullmatch("[0-9]{1,5}/(tcp|udp)", port) and bound(ends) and all(end.get("HostIp") for end in ends)
        for port, ends in value.items()
    )


def _sysctls(value: Any) -> bool:
    return _pairs(value) and all(name.startswith("net.") for name in value)


# What is made ------------------------------------------------------------------------------------------


def container(name: str, body: bytes, allowed: Allowed) -> bytes:
    """The body of ``POST /containers/create`` for a container of that name. Raises Refused."""
    asked = read(body)
    host = fitting(asked.get("HostConfig"), _host_config(allowed), "HostConfig: ")
    found = fitting(asked, {**_CONTAINER, "HostConfig": _is_mapping, "NetworkingConfig": _is_mapping})
    if not _is_labelled(found.get("Labels")):
        raise Refused("it has no label of a deployment")
    if not name.startswith(NEVER_RUN):
        _confined(found, host, allowed)
    found["HostConfig"] = host
    found["NetworkingConfig"] = _endpoints(asked.get("NetworkingConfig"), host)
    return json.dumps(found).encode()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_CONTAINER: Shape = {
    "Hostname": _like("[A-Za-z0-9_.-]+"), "ExposedPorts": _is_mapping, "User": _like("[0-9]+:[0-9]+"), "Env": _texts,
    "Cmd": _texts, "Entrypoint": _texts, "Image": _like("[A-Za-z0-9_./:@-]+"), "WorkingDir": _text, "Labels": _pairs,
    "StopSignal": _text, "StopTimeout": _count, "Healthcheck": _HEALTH, "AttachStdout": _flag, "AttachStderr": _flag,
}  # fmt: skip


def _is_labelled(labels: Any) -> bool:
    return _pairs(labels) and any(
        OUR_LABEL.fullmatch(name) and re.fullmatch(DEPLOYMENT, value) for name, value in labels.items()
    )


def _host_config(allowed: Allowed) -> Shape:
    def bind(value: Any) -> bool:
        fits = _object({"Type": _same("bind"), "Source": _text, "Target": _text, "ReadOnly": _flag})
        return fits(value) and value.get("Type") == "bind" and _is_below(value.get("Source"), allowed.directories)

    def device(value: Any) -> bool:
        fits = _object({"PathOnHost": _text, "PathInContainer": _text, "CgroupPermissions": _like("[rwm]{1,3}")})
        return fits(value) and value.get("PathOnHost") in allowed.devices

    def network(value: Any) -> bool:
        return (
            value in ("none", *allowed.networks)
            or (value == "host" and allowed.host_network)
            or (_text(value) and NETWORK.fullmatch(value) is not None)
        )

    return {
        "CapDrop": _same(["ALL"]), "DeviceRequests": _each(_GPUS) if "gpus" in allowed.devices else _is_empty,
        "Devices": _each(device), "Dns": _texts, "DnsOptions": _texts, "DnsSearch": _texts, "ExtraHosts": _texts,
        "GroupAdd": _each(_like("[0-9]+")), "Init": _flag, "IpcMode": _same("private", "none"), "LogConfig": _LOG,
        "Memory": _count, "MemorySwap": _count, "Mounts": _each(bind), "NanoCpus": _count, "NetworkMode": network,
        "PidsLimit": _count, "PortBindings": _ports, "ReadonlyRootfs": _flag,
        "RestartPolicy": _object({"Name": _same("no"), "MaximumRetryCount": _is_empty}),
        "Runtime": _same(*allowed.runtimes), "SecurityOpt": _texts, "ShmSize": _count, "Sysctls": _sysctls,
        "Tmpfs": _pairs, "Ulimits": _each(_LIMIT),
    }  # fmt: skip


def _is_below(path: Any, directories: tuple[str, ...]) -> bool:
    return (
        _text(path)
        and posixpath.normpath(path) == path
        and any(path.startswith(f"{directory.rstrip('/')}/") for directory in directories)
    )


def _confined(found: Mapping[str, Any], host: Mapping[str, Any], allowed: Allowed) -> None:
    """Raise Refused unless it runs as somebody, without rights, under the profile, within limits."""
    wrong = None
    if not found.get("User") or (found["User"].startswith("0") and not allowed.root):
        wrong = "User"
    elif host.get("CapDrop") != ["ALL"]:
        wrong = "HostConfig.CapDrop"
    elif not _is_hardened(host.get("SecurityOpt") or []):
        wrong = "HostConfig.SecurityOpt"
    elif not all(host.get(name, 0) > 0 for name in ("Memory", "PidsLimit", "NanoCpus")):
        wrong = "HostConfig: its limits"
    elif not host.get("NetworkMode"):
        wrong = "HostConfig.NetworkMode"
    if wrong:
        raise Refused(f"{wrong} is not what Boilerhouse asks for")


def _is_hardened(options: list[str]) -> bool:
    """Whether these are no new privileges and our profile, each once."""
    return sorted(options) == sorted([NO_NEW_PRIVILEGES, *profile_options()])


@cache
def profile_options() -> list[str]:
    """What names the profile of every container that runs."""
    if not PROFILE.exists():
        return []
    compact = json.dumps(json.loads(PROFILE.read_text()), separators=(",", ":"))
    return [f"seccomp={compact}"]


def _endpoints(value: Any, host: Mapping[str, Any]) -> dict[str, Any] | None:
    """Its address, in the one network that it is in."""
    ends = fitting(value or {}, {"EndpointsConfig": _is_mapping}).get("EndpointsConfig") or {}
    address = _object({"IPAMConfig": _object({"IPv4Address": _text, "IPv6Address": _text})})
    for name, end in ends.items():
        if name != host.get("NetworkMode") or not address(end):
            raise Refused("NetworkingConfig is not what Boilerhouse asks for")
    return {"EndpointsConfig": ends} if ends else None


def network(body: bytes) -> bytes:
    """The body of ``POST /networks/create``. Raises Refused."""
    pools = _each(_object({"Subnet": _text, "Gateway": _text, "IPRange": _is_empty, "AuxiliaryAddresses": _is_empty}))
    found = fitting(
        read(body),
        {
            "Name": _like(NETWORK.pattern), "Driver": _same("bridge"), "CheckDuplicate": _flag, "Internal": _flag,
            "EnableIPv6": _flag, "EnableIPv4": _flag, "Labels": _is_labelled, "Options": _network_options,
            "IPAM": _object({"Driver": _same("default"), "Config": pools, "Options": _is_empty}),
        },
    )  # fmt: skip
    if not all(found.get(name) for name in ("Name", "Driver", "Labels", "Options")):
        raise Refused("it is no network of Boilerhouse")
    return json.dumps(found).encode()


def _network_options(value: Any) -> bool:
    return (
        _pairs(value)
        and all(name.startswith("com.docker.network.") for name in value)
        and re.fullmatch(f"bh{DEPLOYMENT}", value.get("com.docker.network.bridge.name", "")) is not None
    )


# What runs in it ----------------------------------------------------------------------------------------


def command(body: bytes) -> bytes:
    """The body of ``POST /containers/{name}/exec``. Raises Refused."""
    shape = {
        "AttachStdin": _flag, "AttachStdout": _flag, "AttachStderr": _flag, "Tty": _flag, "Cmd": _texts,
        "Container": _like(OURS), "Env": _texts,
    }  # fmt: skip
    return json.dumps(fitting(read(body), shape)).encode()


def beginning(body: bytes) -> bytes:
    """The body of ``POST /exec/{id}/start``: attached, so that it becomes a stream. Raises Refused."""
    return json.dumps({**fitting(read(body), {"Tty": _flag}), "Detach": False}).encode()


def login(body: bytes) -> bytes:
    """The body of ``POST /auth``. Raises Refused."""
    names = ("username", "password", "email", "serveraddress", "identitytoken", "registrytoken", "auth")
    return json.dumps(fitting(read(body), dict.fromkeys(names, _text))).encode()


def is_about_ours(filters: str) -> bool:
    """Whether a list or a stream of events is asked for by a label of ours."""
    labels = read(filters.encode()).get("label")
    return isinstance(labels, list) and any(_text(one) and one.startswith("boilerhouse.") for one in labels)
