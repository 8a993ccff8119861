"""Differences between a container and Docker's create request for it.

An engine drops what its kernel or cgroups do not support (a limit of processes or of swap, a default profile) with only
a warning. So everything that was requested is compared with ``inspect``, and anything that was not requested and would
weaken the isolation is reported. New keys of the request are compared without a change here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pools.runtime.base import OUR_LABELS

SWAPS = Path("/proc/swaps")
FIELDS = {
    "Cmd": "command",
    "Devices": "devices",
    "DeviceRequests": "resources.gpus",
    "Dns": "dns",
    "Entrypoint": "entrypoint",
    "Env": "environment",
    "ExtraHosts": "extraHosts",
    "GroupAdd": "user.groups",
    "Healthcheck": "healthCheck",
    "Init": "init",
    "Labels": "labels",
    "Memory": "resources.memoryMb",
    "MemorySwap": "memory without swap",
    "Mounts": "volumes",
    "NanoCpus": "resources.cpus",
    "NetworkMode": "security.networkMode",
    "PidsLimit": "resources.pidsLimit",
    "PortBindings": "ports",
    "ReadonlyRootfs": "security.readOnlyRootFilesystem",
    "Runtime": "security.runtime",
    "ShmSize": "resources.shmMb",
    "StopSignal": "stopSignal",
    "Tmpfs": "tmpfs",
    "Ulimits": "ulimits",
    "User": "the container's user",
    "WorkingDir": "workingDir",
}
"""The engine's name → ours, for error messages."""
UNASKED = (
    "Binds", "CapAdd", "DeviceCgroupRules", "DeviceRequests", "Devices", "Dns", "ExtraHosts", "GroupAdd", "Links",
    "OomKillDisable", "PidMode", "PortBindings", "Privileged", "PublishAllPorts", "Sysctls", "UTSMode", "UsernsMode",
    "VolumesFrom",
)  # fmt: skip
"""HostConfig keys that would weaken the isolation and must be empty unless requested."""
CLOSED_PATHS = ("MaskedPaths", "ReadonlyPaths")
"""Kernel files that the engine masks in every container, unless told otherwise."""
NONE_AT_ALL = frozenset({"Entrypoint"})
"""Keys that replace the image's value even if they are empty."""
HIDDEN = frozenset({"Env", "Labels"})
"""Keys whose values are compared but not shown in errors."""


def differences(requested: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Differences between a running container and the body of its create request, as text; empty if there are none.

    ``found`` is the output of ``inspect``.
    """
    host = requested["HostConfig"]
    config = {key: value for key, value in requested.items() if key not in ("HostConfig", "NetworkingConfig")}
    limits = {key: value for key, value in host.items() if key != "Mounts"}
    return [
        *_compared("Config", config, actual["Config"]),
        *_compared("HostConfig", limits, actual["HostConfig"]),
        *_unasked(host, actual["HostConfig"]),
        *_mounts(host.get("Mounts") or (), actual["Mounts"]),
        *_networks(requested, actual["NetworkSettings"]["Networks"]),
        *_foreign_labels(requested.get("Labels") or {}, actual["Config"].get("Labels") or {}),
        *_profile(actual),
    ]


def _compared(part: str, requested: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    for key, expected in requested.items():
        if expected is None or (expected in ([], {}, "") and key not in NONE_AT_ALL):
            continue  # the image's or the engine's default
        value = actual.get(key)
        if not RULES.get(key, _is)(expected, value):
            yield _difference(part, key, expected, value)


def _difference(part: str, key: str, expected: Any, value: Any) -> str:
    name = f"{FIELDS[key]} ({part}.{key})" if key in FIELDS else f"{part}.{key}"
    if key in HIDDEN:
        return f"{name} differs from the request"
    return f"{name} is {_short(value)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    return "nothing" if value is None or value in ([], {}, "") else str(value)[:120]


def _is(expected: Any, actual: Any) -> bool:
    """Whether ``got`` matches ``wanted``; an object may have additional keys."""
    if not expected:
        return not actual
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(_is(value, actual.get(key)) for key, value in expected.items())
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        same_length = isinstance(actual, Sequence) and len(actual) == len(expected)
        return same_length and all(map(_is, expected, actual))
    return bool(actual == expected)


def _exactly(expected: Any, value: Any) -> bool:
    return bool(expected == (value or {}))


def _holds(expected: Iterable[str], value: Any) -> bool:
    return set(expected) <= set(value or ())


def _same_set(expected: Iterable[str], value: Any) -> bool:
    return {item.removesuffix(":true") for item in expected} == {item.removesuffix(":true") for item in value or ()}


def _limits(expected: Sequence[Mapping[str, Any]], value: Any) -> bool:
    """The engine adds its own defaults for limits that were not requested."""
    there = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in value or ()}
    return all(there.get(limit["Name"]) == (limit["Soft"], limit["Hard"]) for limit in expected)


def _same_addresses(expected: Sequence[str], value: Any) -> bool:
    """In the requested order; an engine may spell an IPv6 address differently."""
    return list(map(_address, expected)) == list(map(_address, value or ()))


def _same_hosts(expected: Sequence[str], value: Any) -> bool:
    return set(map(_host, expected)) == set(map(_host, value or ()))


def _host(line: str) -> tuple[str, str]:
    """A name and its address; engines also accept and return ``name=address`` and ``name:[address]``."""
    name, _, address = line.replace("=", ":", 1).partition(":")
    return name, _address(address.removeprefix("[").removesuffix("]"))


def _same_ports(expected: Mapping[str, Any], value: Any) -> bool:
    return _bound(expected) == _bound(value or {})


def _bound(ports: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    pairs = [(port, binding) for port, bound in ports.items() for binding in bound or ()]
    return {(port, _address(str(binding["HostIp"])), str(binding["HostPort"])) for port, binding in pairs}


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _same_check(expected: Mapping[str, Any], actual: Any) -> bool:
    """The engine fills in missing values from the image's check, even if it is disabled."""
    return _is({key: value for key, value in expected.items() if value}, actual)


def _no_swap(expected: int, value: Any) -> bool:
    """A machine without swap grants none, whatever its kernel can limit."""
    return bool(value == expected) or not _has_swap()


def _has_swap() -> bool:
    try:
        return len(SWAPS.read_text().splitlines()) > 1
    except FileNotFoundError:
        return False  # a kernel without swap accounting


RULES: dict[str, Callable[[Any, Any], bool]] = {
    "CapDrop": _same_set,
    "Dns": _same_addresses,
    "Env": _holds,
    "ExposedPorts": _holds,  # names without values; the image may have more
    "ExtraHosts": _same_hosts,
    "Healthcheck": _same_check,
    "MemorySwap": _no_swap,
    "PortBindings": _same_ports,
    "SecurityOpt": _same_set,
    "Tmpfs": _exactly,
    "Ulimits": _limits,
}
"""Keys that need a special comparison."""


def _unasked(requested: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    for key in UNASKED:
        value = actual.get(key)
        if value and not requested.get(key):
            yield f"HostConfig.{key} is {_short(value)}, which was not requested"


def _mounts(requested: Sequence[Mapping[str, Any]], actual: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    expected = {(mount["Target"], mount["Source"], not mount["ReadOnly"]) for mount in requested}
    there = {(mount["Destination"], mount.get("Source", ""), bool(mount["RW"])) for mount in actual}
    for target in sorted({mount[0] for mount in expected - there}):
        yield f"{FIELDS['Mounts']} (Mounts): the requested mount at {target} is missing"
    for target in sorted({mount[0] for mount in there} - {mount[0] for mount in expected}):
        yield f"Mounts: there is a mount at {target}, which was not requested"


def _networks(requested: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    mode = requested["HostConfig"]["NetworkMode"]
    if set(actual) != {mode}:
        yield f"{FIELDS['NetworkMode']}: it is in the networks {_short(sorted(actual))} instead of {mode}"
    for name, end in ((requested.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}).items():
        for asked_as, shown_as in (("IPv4Address", "IPAddress"), ("IPv6Address", "GlobalIPv6Address")):
            expected, value = end["IPAMConfig"].get(asked_as, ""), actual.get(name, {}).get(shown_as)
            if _address(expected) != _address(value or ""):
                yield f"its address in the network {name} is {_short(value)} instead of {expected or 'none'}"


def _foreign_labels(requested: Mapping[str, str], actual: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(actual.keys() - requested.keys()):
        if name.startswith(OUR_LABELS):
            yield f"the image has the label {name}, which only Boilerhouse may set"


def _profile(actual: Mapping[str, Any]) -> Iterator[str]:
    if actual.get("AppArmorProfile") == "unconfined":
        yield "AppArmorProfile is unconfined instead of the engine's default"
    for key in CLOSED_PATHS:
        if not actual["HostConfig"].get(key):
            yield f"HostConfig.{key} is empty instead of the engine's default: /proc and /sys are not protected"
