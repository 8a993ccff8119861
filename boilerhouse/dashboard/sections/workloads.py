"""The form of a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boilerhouse.core import deployment_settings
from boilerhouse.dashboard.documents import Part, Section, Sections, get
from pools import limits, mounts, permits
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
"""What each limit bounds."""


def sections_of(*, is_new: bool) -> Sections:
    """For one request: what may be chosen is read once."""
    allowed = deployment_settings.current()
    variables = ", ".join(f"${{{name}}}" for name in sorted(BUILT_IN_VARIABLES | set(allowed.variables)))
    networks = ["bridge", "none", *(["host"] if allowed.allow_host_network else []), *allowed.allowed_networks]
    new_id = (Part("id", "Id", "Letters, digits and -; stays for ever. Empty: made from the name"),) if is_new else ()

    def mount(name: str, title: str, lede: str, path: str, *, is_fixed: bool = False) -> Section:
        mode = () if is_fixed else (Part("mode", "Mode", kind="choice", options=MODES, default="rw"),)
        parts = (Part("containerPath", "Path in the container", "Absolute, such as " + path), *mode)
        return Section(title, parts, lede, f"volumes/{name}", {"containerPath": path})

    def hook(name: str, title: str, lede: str) -> Section:
        parts = (
            Part("command", "Command", "Exit 0 is success", "words"),
            Part("timeoutMs", "Ends after", kind="ms", default=10_000),
        )
        return Section(title, parts, lede, f"hooks/{name}", {"command": ["true"], "timeoutMs": 10_000})

    older_uid = Section("User id as security.runAsUser", (
        Part("runAsUser", "User id", "The same as the user id under User; one of the two is enough", "number"),
    ), path="security")  # fmt: skip
    made = (
        Section("Workload", (
            *new_id,
            Part("name", "Name", "A label; may repeat"),
            Part("image", "Image", "With its tag or digest"),
            Part("pullPolicy", "Pull", kind="choice", default="missing", options=(
                ("missing", "when it is not here"), ("always", "always"), ("never", "never"))),
            Part("imageUpdate", "When its tag has moved", kind="choice", options=(
                ("", "roll where pulled always, else say so"), ("manual", "say so"), ("roll", "roll to it"))),
        )),
        Section("Process", (
            Part("command", "Command", "To run something else. An entrypoint gets it as its arguments. Empty: the"
                 " image's own", "words"),
            Part("entrypoint", "Entrypoint", "Where the image's does what cannot be done here, such as sudo or chown;"
                 " give the command too. [] for none: the command runs by itself. Empty: the image's own", "words",
                 values={"[]": []}),
            Part("workingDir", "Working directory", "Where relative paths begin; absolute. Empty: the image's own"),
            Part("init", "Process 1", "The image's own where it must be process 1, as s6-overlay's /init; it then"
                 " has to reap processes and handle the signal to stop", "choice", default="init",
                 values={"init": True}, options=(
                ("init", "a small init, above the image's process"),
                ("image", "the image's own process"))),
            Part("stopSignal", "Signal to stop", "Where the image names the wrong one: nginx drains by SIGQUIT,"
                 " PostgreSQL ends sessions by SIGINT", "choice", options=(
                ("", "the image's STOPSIGNAL, else SIGTERM"), *((one, one) for one in STOP_SIGNALS))),
            Part("stopTimeoutMs", "Time to stop", "Between that signal and SIGKILL; longer for what saves much as it"
                 " ends", "ms", default=10_000),
        ), "What of the image's own start is replaced."),
        Section("User", (
            Part("uid", "User id", "Where the image must have this one. Empty: one of its own for each container,"
                 " which keeps them further apart", "number"),
            Part("gid", "Group id", "0 for images made for OpenShift. Empty: the number of the user id", "number"),
            Part("name", "Name", "An entry in /etc/passwd, for git, ssh, initdb, JupyterLab and others that look it"
                 " up. Needs a home"),
            Part("home", "Home", "HOME, for npm, pip, caches. A directory in a volume, such as the state's"),
            Part("groups", "More groups", "By number, for files and devices that only they may open, such as 44"
                 " (video)", "list"),
        ), "For images that need a certain user, group or home. Left out, each container has a user id of its own, and"
           " no name.", "user", {"home": "/state"}),
        older_uid,
        Section("Health check", (
            Part("command", "Command", "Exit 0 is healthy", "words"),
            Part("intervalMs", "Every", kind="ms", default=30_000),
            Part("timeoutMs", "Fails after", kind="ms", default=5_000),
            Part("retries", "Failures in a row", "Until it is unhealthy", "number", default=3),
            Part("startPeriodMs", "Time to start", "The first success ends it", "ms", default=60_000),
        ), "A container is warm once this has passed.", "healthCheck", {"command": ["true"], "intervalMs": 30_000},
           instead=frozenset({IMAGES_OWN}), otherwise=(
            Part("healthCheck", "Who says whether it is healthy", "Nobody, where the image's check looks for what is"
                 " not there yet, or elsewhere. For a command of your own, add a check", "choice",
                 default=IMAGES_OWN, values={"off": None}, options=(
                (IMAGES_OWN, "the image's HEALTHCHECK, if any"), ("off", "nobody"))),
        )),
        Section("Resources", (
            Part("cpus", "CPUs", "0.5 is half of one", "number", default=1),
            Part("memoryMb", "Memory", "Processes, and every file in memory", "mb", default=512),
            Part("pidsLimit", "Processes", "And threads, at most", "number", default=256),
            Part("tmpfsMb", "Temporary files (/tmp)", "In memory; gone with the container", "mb", default=64),
            Part("shmMb", "Shared memory (/dev/shm)", "128 and more for PostgreSQL, PyTorch's data loaders."
                 " Empty: as large as temporary files", "mb"),
            Part("diskMb", "Disk, all volumes", "Empty: the deployment's default", "mb"),
        ), path="resources"),
        Section("Directories in memory", (
            Part("path", "Path in the container", f"Beside the volumes, none inside another. {mounts.SCRATCH} to change"
                 " its size, or what may run there"),
            Part("sizeMb", "Size", "Counts towards the memory", "mb"),
            Part("exec", "Programs may run from it", "For native libraries that Java or Node unpack, wheels that are"
                 " built", "flag"),
        ), "For /var/cache, /run and others that a read-only root does not have. Empty at the start, gone with the"
           " container.", "tmpfs", {"path": "/scratch", "sizeMb": 64}, is_list=True, one="Directory"),
        Section("Limits of processes", (
            Part("name", "Name", kind="choice", options=_limits()),
            Part("soft", "Soft", "Empty: as hard; -1: none", "number"),
            Part("hard", "Hard", "-1: none, where the deployment allows it", "number"),
        ), "For databases, servers with many connections and file watchers. Default: 4,096 open files,"
           " no core files.", "ulimits", {"name": "nofile", "hard": 65536}, is_list=True, one="Limit"),
        *_devices(allowed.allowed_devices),
        mount("state", "State volume", "What a sync spec can save.", "/state"),
        mount("secrets", "Secrets volume", "config.json, claim.json and the claim's secrets, in RAM.", "/run/secrets",
              is_fixed=True),
        mount("comm", "Communication volume", "For what the container and its host exchange.", "/comm"),
        Section("More volumes", (
            Part("name", "Name"), Part("containerPath", "Path in the container"),
            Part("mode", "Mode", kind="choice", options=MODES, default="rw"),
        ), path="volumes/custom", blank={"name": "", "containerPath": "/data"}, is_list=True, one="Volume"),
        Section("Environment", (
            Part("environment", "Variables", f"NAME=value, one in a line. Known inside values: {variables}", "map"),
        ), "Set before a tenant claims; for what differs by tenant read claim.json."),
        Section("Ports", (
            Part("name", "Name"), Part("containerPort", "Port", kind="number"),
            Part("protocol", "Protocol", kind="choice", options=(("tcp", "tcp"), ("udp", "udp")), default="tcp"),
            Part("publish", "Also on a port of the host's loopback", kind="flag"),
        ), path="ports", blank={"name": "http", "containerPort": 8080}, is_list=True, one="Port"),
        Section("Names of hosts", (
            Part("extraHosts", "More hosts", "name=address, one in a line, for what no resolver knows, such as"
                 " db.internal=192.0.2.7; 127.0.0.1 leads nowhere", "map"),
            Part("dns", "Resolvers", "Up to three addresses, where the node's do not know a name. A pool's own take"
                 " their place", "list"),
        )),
        Section("Security", (
            Part("readOnlyRootFilesystem", "The root file system is read only", kind="flag", default=True),
            Part("networkMode", "Network", kind="choice", options=[(one, one) for one in networks], default="bridge"),
            Part("runtime", "Runtime", kind="choice",
                 options=[("", "the engine's own"), *((one, one) for one in allowed.allowed_runtimes)]),
        ), path="security"),
        hook("postClaim", "After a claim", "Runs inside once the tenant's state, config and secrets are there."),
        hook("preRelease", "Before a release", "Runs inside before the container is stopped and saved."),
        hook("preSave", "Before a save while it works", "Runs inside before each periodic save and each by hand."),
        Section("Seed", (
            Part("seed", "First state", "A directory below the deployment's seeds, for tenants that have none"),
        )),
        Section("Config schema", (
            Part("configSchema", "JSON Schema (2020-12)", "Claims whose config does not fit are refused", "json"),
        )),
        Section("Labels", (
            Part("labels", "Labels of the container", "NAME=value, one in a line, for collectors of logs and accounting"
                 " that look at the engine. Not secret", "map"),
        )),
    )  # fmt: skip

    def sections(value: dict[str, Any]) -> Sequence[Section]:
        has_older_uid = get(value, "/security/runAsUser") is not None
        return [one for one in made if one is not older_uid or has_older_uid]

    return sections


def _limits() -> list[tuple[str, str]]:
    """Those that may be other than 0 here, each with how high it may go."""
    highest = {name: ceiling for name, ceiling in sorted(limits.ceilings().items()) if ceiling != 0}
    return [
        (name, f"{name}: {LIMITS[name]}" + ("" if ceiling == limits.UNLIMITED else f", up to {ceiling:,}"))
        for name, ceiling in highest.items()
    ]


def _devices(allowed: Sequence[str]) -> tuple[Section, Section]:
    """Closed where the deployment allows none; what a workload has is shown all the same."""
    named = [one for one in allowed if one != permits.GPUS]
    shared = "Tenants meet the same one, one after another."
    off = "Off in this deployment: BOILERHOUSE_ALLOWED_DEVICES does not name"
    what = "Of the node, under the same path, such as /dev/kvm for virtual machines."
    devices = Section("Devices", (
        Part("path", "Device", kind="choice", options=[(one, one) for one in named]),
        Part("permissions", "The container may", kind="choice", default="rw",
             options=(("rw", "read and write"), ("r", "read"))),
    ), f"{what} {shared}" if named else f"{off} any.", "devices",
       {"path": named[0] if named else ""}, is_list=True, one="Device", is_closed=not named)  # fmt: skip
    has_gpus = permits.GPUS in allowed
    gpus = Section("GPUs", (
        Part("count", "How many", "-1: all", "number"),
        Part("ids", "Or these", "Index or id, one in a line; then no number", "list"),
    ), f"The node's engine needs the vendor's container toolkit. {shared}" if has_gpus else f"{off} {permits.GPUS}.",
       "resources/gpus", {"count": 1}, is_closed=not has_gpus)  # fmt: skip
    return devices, gpus


def start() -> dict[str, Any]:
    """Where a new workload begins."""
    return {
        "name": "My workload",
        "image": "registry.example/image:tag",
        "volumes": {"state": {"containerPath": "/state", "mode": "rw"}},
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "tcp"}],
        "healthCheck": {"command": ["true"], "intervalMs": 30000, "timeoutMs": 5000, "retries": 3},
        "resources": {"cpus": 1, "memoryMb": 512},
    }
