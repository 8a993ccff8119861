"""The form of a workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from boilerhouse.core import deployment_settings
from boilerhouse.dashboard.documents import Part, Section, Sections, get
from pools import limits, mounts, permissions
from pools.api.process_fields import IMAGES_OWN, STOP_SIGNALS
from pools.spec import BUILT_IN_VARIABLES

MODES = (("rw", "read and write"), ("ro", "read only"))
LIMITS = {
    "core": "size of core files, bytes",
    "cpu": "processor time, seconds",
    "data": "data segment, bytes",
    "fsize": "size of a file, bytes",
    "locks": "locks on files",
    "memlock": "locked memory, bytes",
    "msgqueue": "message queues, bytes",
    "nice": "priority",
    "nofile": "open files",
    "nproc": "processes of the user",
    "rss": "resident memory, bytes",
    "rtprio": "real-time priority",
    "rttime": "real-time processor time, µs",
    "sigpending": "pending signals",
    "stack": "stack, bytes",
}
"""What each limit restricts."""
BASICS = frozenset({"Workload", "Resources", "Health check", "Ports"})
"""The sections that are open from the start."""


def sections_of(*, is_new: bool) -> Sections:
    """Built per request, because the choices are read once."""
    allowed = deployment_settings.current()
    variables = ", ".join(f"${{{name}}}" for name in sorted(BUILT_IN_VARIABLES | set(allowed.variables)))
    networks = ["bridge", "none", *(["host"] if allowed.allow_host_network else []), *allowed.allowed_networks]
    new_id = (
        (Part("id", "Id", "Letters, digits and -. Cannot be changed later. Leave empty to derive it from the name"),)
        if is_new
        else ()
    )

    def mount(name: str, title: str, lede: str, path: str, *, is_fixed: bool = False) -> Section:
        mode = () if is_fixed else (Part("mode", "Mode", kind="choice", options=MODES, default="rw"),)
        parts = (Part("containerPath", "Path in the container", "Absolute, such as " + path), *mode)
        return Section(title, parts, lede, f"volumes/{name}", {"containerPath": path})

    def hook(name: str, title: str, lede: str) -> Section:
        parts = (
            Part("command", "Command", "Exit 0 is success", "words"),
            Part("timeoutMs", "Timeout", kind="ms", default=10_000),
        )
        return Section(title, parts, lede, f"hooks/{name}", {"command": ["true"], "timeoutMs": 10_000})

    older_uid = Section("User id as security.runAsUser", (
        Part("runAsUser", "User id", "The same as the user id under User; one of the two is enough", "number"),
    ), path="security")  # fmt: skip
    every = (
        Section("Workload", (
            *new_id,
            Part("name", "Name", "A label; need not be unique", placeholder="Notebook server"),
            Part("image", "Image", "With tag or digest", placeholder="registry.example/image:tag"),
            Part("pullPolicy", "Pull", kind="choice", default="missing", options=(
                ("missing", "if not present"), ("always", "always"), ("never", "never"))),
            Part("imageUpdate", "When the tag changes", kind="choice", options=(
                ("", "roll if pulled always, otherwise report"), ("manual", "report"),
                ("roll", "roll to the new image"))),
        )),
        Section("Resources", (
            Part("cpus", "CPUs", "0.5 is half of one", "number", default=1),
            Part("memoryMb", "Memory", "Processes and files in memory", "mb", default=512),
            Part("pidsLimit", "Processes", "Maximum, including threads", "number", default=256),
            Part("tmpfsMb", "Temporary files (/tmp)", "In memory; deleted with the container", "mb", default=64),
            Part("shmMb", "Shared memory (/dev/shm)", "At least 128 for PostgreSQL and PyTorch data loaders."
                 " Empty: the size of temporary files", "mb"),
            Part("diskMb", "Disk, all volumes", "Empty: the deployment's default", "mb"),
        ), path="resources"),
        Section("Health check", (
            Part("command", "Command", "Exit 0 is healthy. “true” only shows that the container runs", "words"),
            Part("intervalMs", "Every", kind="ms", default=30_000),
            Part("timeoutMs", "Timeout", kind="ms", default=5_000),
            Part("retries", "Failures in a row", "Until it is unhealthy", "number", default=3),
            Part("startPeriodMs", "Start period", "Ends at the first success", "ms", default=60_000),
        ), "A container is warm once the check has passed.", "healthCheck", {"command": ["true"], "intervalMs": 30_000},
           instead=frozenset({IMAGES_OWN}), otherwise=(
            Part("healthCheck", "Health check", "Off if the image's check tests something that exists only after"
                 " a claim. Add a check to use your own command", "choice",
                 default=IMAGES_OWN, values={"off": None}, options=(
                (IMAGES_OWN, "the image's HEALTHCHECK, if any"), ("off", "off"))),
        )),
        Section("Ports", (
            Part("name", "Name"), Part("containerPort", "Port", kind="number"),
            Part("protocol", "Protocol", kind="choice", options=(("tcp", "tcp"), ("udp", "udp")), default="tcp"),
            Part("publish", "Publish on the host's loopback address", kind="flag"),
        ), path="ports", blank={"name": "http", "containerPort": 8080}, is_list=True, noun="Port"),
        Section("Process", (
            Part("command", "Command", "Overrides the image's command. Passed as arguments to an entrypoint. Empty: the"
                 " image's own", "words"),
            Part("entrypoint", "Entrypoint", "Overrides the image's entrypoint, such as one that needs sudo or chown;"
                 " set the command too. []: no entrypoint. Empty: the image's own", "words",
                 values={"[]": []}),
            Part("workingDir", "Working directory", "An absolute path. Empty: the image's own"),
            Part("init", "Process 1", "Use the image's process if it must be process 1, such as s6-overlay's /init; it"
                 " then has to reap processes and handle the stop signal", "choice", default="init",
                 values={"init": True}, options=(
                ("init", "a small init, above the image's process"),
                ("image", "the image's own process"))),
            Part("stopSignal", "Stop signal", "Overrides the image's signal: nginx drains on SIGQUIT,"
                 " PostgreSQL ends sessions on SIGINT", "choice", options=(
                ("", "the image's STOPSIGNAL, else SIGTERM"), *((entry, entry) for entry in STOP_SIGNALS))),
            Part("stopTimeoutMs", "Stop timeout", "Between the stop signal and SIGKILL; increase it for programs that"
                 " write much on exit", "ms", default=10_000),
        ), "Overrides how the image starts."),
        Section("User", (
            Part("uid", "User id", "If the image requires one. Empty: a separate id for each container,"
                 " which isolates them better", "number"),
            Part("gid", "Group id", "0 for OpenShift images. Empty: the same as the user id", "number"),
            Part("name", "Name", "An entry in /etc/passwd, for programs that look it up, such as git, ssh, initdb and"
                 " JupyterLab. Requires a home"),
            Part("home", "Home", "HOME, for npm, pip and caches. A directory in a volume, such as the state volume"),
            Part("groups", "More groups", "Supplementary groups, by number, for files and devices that they may open,"
                 " such as 44 (video)", "list"),
        ), "For images that require a certain user, group or home. By default, each container has its own user id and"
           " no user name.", "user", {"home": "/state"}),
        older_uid,
        Section("Directories in memory", (
            Part("path", "Path in the container", f"Outside the volumes and other directories. Use {mounts.SCRATCH} to"
                 " change its size or whether programs may run there"),
            Part("sizeMb", "Size", "Counts towards the memory", "mb"),
            Part("exec", "Programs may run from it", "For native libraries unpacked by Java or Node, and for building"
                 " wheels", "flag"),
        ), "For /var/cache, /run and others that a read-only root lacks. Empty at the start, deleted with the"
           " container.", "tmpfs", {"path": "/scratch", "sizeMb": 64}, is_list=True, noun="Directory"),
        Section("Process limits", (
            Part("name", "Name", kind="choice", options=_limits()),
            Part("soft", "Soft", "Empty: the same as hard; -1: no limit", "number"),
            Part("hard", "Hard", "-1: no limit, if the deployment allows it", "number"),
        ), "For databases, servers with many connections and file watchers. Default: 4,096 open files,"
           " no core files.", "ulimits", {"name": "nofile", "hard": 65536}, is_list=True, noun="Limit"),
        *_devices(allowed.allowed_devices),
        mount("state", "State volume", "The files that a sync spec can save.", "/state"),
        mount("secrets", "Secrets volume", "config.json, claim.json and the claim's secrets, in RAM.", "/run/secrets",
              is_fixed=True),
        mount("comm", "Communication volume", "For data exchanged between the container and its host.", "/comm"),
        Section("More volumes", (
            Part("name", "Name"), Part("containerPath", "Path in the container"),
            Part("mode", "Mode", kind="choice", options=MODES, default="rw"),
        ), path="volumes/custom", blank={"name": "", "containerPath": "/data"}, is_list=True, noun="Volume"),
        Section("Environment", (
            Part("environment", "Variables", f"One NAME=value per line. Values may use {variables}", "map"),
        ), "Set before a tenant claims. For values that differ by tenant, read claim.json."),
        Section("Host names", (
            Part("extraHosts", "More hosts", "One name=address per line, for names that no resolver knows, such as"
                 " db.internal=192.0.2.7; 127.0.0.1 blocks a name", "map"),
            Part("dns", "Resolvers", "Up to three addresses, used instead of the node's resolvers. A pool's own"
                 " resolvers override them", "list"),
        )),
        Section("Security", (
            Part("readOnlyRootFilesystem", "Read-only root file system", kind="flag", default=True),
            Part("networkMode", "Network", kind="choice", default="bridge",
                 options=[(entry, entry) for entry in networks]),
            Part("runtime", "Runtime", kind="choice",
                 options=[("", "the engine's own"), *((entry, entry) for entry in allowed.allowed_runtimes)]),
        ), path="security"),
        hook("postClaim", "After a claim", "Runs inside once the tenant's state, config and secrets are there."),
        hook("preRelease", "Before a release", "Runs inside before the container is stopped and saved."),
        hook("preSave", "Before a save while in use", "Runs inside before each periodic or manual save."),
        Section("Seed", (
            Part("seed", "Initial state", "A directory below the deployment's seeds, for tenants without saved state"),
        )),
        Section("Config schema", (
            Part("configSchema", "JSON Schema (2020-12)", "Claims whose config does not match are refused", "json"),
        )),
        Section("Labels", (
            Part("labels", "Labels of the container", "One NAME=value per line, for log collectors and accounting"
                 " that read them from the engine. Not for secrets", "map"),
        )),
    )  # fmt: skip

    def sections(value: dict[str, Any]) -> Sequence[Section]:
        has_older_uid = get(value, "/security/runAsUser") is not None
        shown = [section for section in every if section is not older_uid or has_older_uid]
        return [replace(section, is_folded=section.title not in BASICS) for section in shown]

    return sections


def _limits() -> list[tuple[str, str]]:
    """Limits that may differ from 0 here, each with its maximum."""
    highest = {name: ceiling for name, ceiling in sorted(limits.ceilings().items()) if ceiling != 0}
    return [
        (name, f"{name}: {LIMITS[name]}" + ("" if ceiling == limits.UNLIMITED else f", up to {ceiling:,}"))
        for name, ceiling in highest.items()
    ]


def _devices(allowed: Sequence[str]) -> tuple[Section, Section]:
    """Closed if the deployment allows none; a workload's existing devices are still shown."""
    named = [device for device in allowed if device != permissions.GPUS]
    shared = "Tenants use the same one, one after another."
    off = "Off in this deployment: BOILERHOUSE_ALLOWED_DEVICES does not name"
    what = "A device of the node, at the same path, such as /dev/kvm for virtual machines."
    devices = Section("Devices", (
        Part("path", "Device", kind="choice", options=[(device, device) for device in named]),
        Part("permissions", "The container may", kind="choice", default="rw",
             options=(("rw", "read and write"), ("r", "read"))),
    ), f"{what} {shared}" if named else f"{off} any.", "devices",
       {"path": named[0] if named else ""}, is_list=True, noun="Device", is_closed=not named)  # fmt: skip
    has_gpus = permissions.GPUS in allowed
    gpus = Section("GPUs", (
        Part("count", "How many", "-1: all", "number"),
        Part("ids", "Or these GPUs", "Index or id, one per line, instead of a number", "list"),
    ), f"Requires the vendor's container toolkit on the node. {shared}" if has_gpus else f"{off} {permissions.GPUS}.",
       "resources/gpus", {"count": 1}, is_closed=not has_gpus)  # fmt: skip
    return devices, gpus


def start() -> dict[str, Any]:
    """The initial value of a new workload."""
    return {
        "name": "",
        "image": "",
        "volumes": {"state": {"containerPath": "/state", "mode": "rw"}},
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "tcp"}],
        "healthCheck": {"command": ["true"], "intervalMs": 30000, "timeoutMs": 5000, "retries": 3},
        "resources": {"cpus": 1, "memoryMb": 512},
    }
