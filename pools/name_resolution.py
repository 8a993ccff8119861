"""Name resolution in containers: our files in /etc, and no access to the engine's resolver.

The engine's resolver (127.0.0.11, in each container's network namespace) tells anyone which other containers exist and
their names. So containers query the node's resolvers directly, and a rule in their own namespace, which they may not
change, closes the engine's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from pools import resolvers
from pools.errors import HostNotReady
from pools.models import Container
from pools.runtime.base import Mount
from pools.spec import WorkloadSpec

FILES = {"/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts"}
BY_POLICY = "# by the network policy"
TIMEOUT_S = 15
ENGINES = "127.0.0.11"
TABLE = "boilerhouse"
CLOSED = f"""
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain output {{
        type filter hook output priority raw; policy accept;
        ip daddr {ENGINES} reject with icmp type admin-prohibited
    }}
}}
"""
"""Before the engine's own rules, which redirect to its resolver's port."""


def servers(container: Container, spec: WorkloadSpec) -> tuple[str, ...]:
    """Addresses of the container's resolvers: the pool's, the workload's, or the node's."""
    return tuple((container.network or {}).get("dns") or spec.dns) or resolvers.of_node()


def write(
    home: Path, container: Container, spec: WorkloadSpec, hostname: str, named: Mapping[str, Iterable[str]]
) -> None:
    """Write the files that ``binds`` mounts below ``home``; mounted files change in running containers too.

    ``named`` are additional names and their addresses.
    """
    directory = home / ".network"
    directory.mkdir(mode=0o700, exist_ok=True)
    lines = ["127.0.0.1\tlocalhost", f"{container.address}\t{hostname}"]
    lines += [f"{address}\t{name}" for name, address in spec.extra_hosts.items()]
    lines += [f"{address}\t{name}\t{BY_POLICY}" for name, addresses in sorted(named.items()) for address in addresses]
    _put(directory / FILES["/etc/hosts"], lines)
    _put(directory / FILES["/etc/resolv.conf"], [f"nameserver {server}" for server in servers(container, spec)])


def _put(path: Path, lines: list[str]) -> None:
    """Written in place, because a mount refers to the file and not to its name."""
    content = "".join(f"{line}\n" for line in lines).encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o444)
    with os.fdopen(descriptor, "r+b") as file:
        os.fchmod(descriptor, 0o444)
        if file.read() != content:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))


def has_files(home: Path) -> bool:
    """Whether the container uses our files; containers of earlier versions use the engine's resolver."""
    return (home / ".network").is_dir()


def has_names(home: Path) -> bool:
    """Whether its hosts file contains names of a policy."""
    return BY_POLICY in (home / ".network" / FILES["/etc/hosts"]).read_text()


def binds(home: Path) -> tuple[Mount, ...]:
    """Mounts in addition to the volumes."""
    return tuple(Mount(str(home / ".network" / name), path, read_only=True) for path, name in FILES.items())


def close(pid: int) -> None:
    """Close the engine's resolver to all processes in this process's network namespace. Raises HostNotReady."""
    result = _inside(pid, ["nft", "-f", "-"], CLOSED)
    if result is not None and result.returncode != 0:
        raise HostNotReady(f"Cannot close the engine's resolver to a container: {result.stderr.strip()[:300]}")


def is_closed(pid: int) -> bool:
    """Whether it is closed; also if the process has ended. Raises HostNotReady."""
    result = _inside(pid, ["nft", "list", "table", "ip", TABLE])
    return result is None or f"ip daddr {ENGINES} reject" in result.stdout


def _inside(pid: int, command: list[str], text: str = "") -> subprocess.CompletedProcess[str] | None:
    """None if the process has ended, or has no network namespace of its own that this host sees."""
    try:
        if not pid or _namespace(pid) == _namespace(os.getpid()):
            return None
        result = subprocess.run(
            ["nsenter", "-t", str(pid), "-n", *command],
            input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        if error.filename == f"/proc/{pid}/ns/net":
            return None
        raise HostNotReady(f"Cannot run nsenter: {error}. Install util-linux.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostNotReady(f"Cannot enter a container's network namespace: {error}") from error
    return None if result.returncode != 0 and not Path(f"/proc/{pid}").exists() else result


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")
