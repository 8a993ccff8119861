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


def sections_of(*, is_new: bool) -> Sections:
    """For one request: what may be chosen is read once."""
    allowed = deployment_settings.current()
    variables = ", ".join(f"${{{name}}}" for name in sorted(BUILT_IN_VARIABLES | set(allowed.variables)))
    networks = ["bridge", "none", *(["host"] if allowed.allow_host_network else []), *allowed.allowed_networks]
    new_id = (Part("id", "Id", "Letters, digits and -; stays for ever. Empty: made from the name"),) if is_new else ()

    def mount(name: str, title: str, lede: str, path: str, *, is_fixed: bool = False) -> Section:
        mode = () if is_fixed else (Part("mode", "Mode", kind="choice", options=MODES, default="rw"),)
        parts = (Part("containerPath", "Path in the container", "Absolute, such as /state"), *mode)
        return Section(title, parts, lede, f"volumes/{name}", {"containerPath": path})

    def hook(name: str, title: str, lede: str) -> Section:
        parts = (
            Part("command", "Command", "Exit 0 is success", "words"),
            Part("timeoutMs", "Ends after", kind="ms", default=10_000),
        )
        return Section(title, parts, lede, f"hooks/{name}", {"command": ["true"], "timeoutMs": 10_000})

    no_check = Section("Without a health check of its own", (
        Part("healthCheck", "Health is", kind="choice", default=IMAGES_OWN, values={"off": None}, options=(
            (IMAGES_OWN, "what the image's own HEALTHCHECK says, if it has one"),
            ("off", "not asked for: a HEALTHCHECK of the image does not run"))),
    ))  # fmt: skip
    older_uid = Section("User by its older spelling", (
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
            Part("command", "Command", "Empty: the image's own. An entrypoint gets it as its arguments", "words"),
            Part("stopTimeoutMs", "Time to stop", "Between the signal to stop and SIGKILL", "ms", default=10_000),
        )),
        Section("Process", (
            Part("entrypoint", "Entrypoint", "Empty: the image's own. For none write [] under JSON", "words"),
            Part("workingDir", "Working directory", "Absolute. Empty: the image's own"),
            Part("init", "Process 1", kind="choice", default="init", values={"init": True}, options=(
                ("init", "a small init: passes signals on, reaps processes"),
                ("image", "the image's own process, such as s6's /init"))),
            Part("stopSignal", "Signal to stop", kind="choice", options=(
                ("", "the image's STOPSIGNAL, else SIGTERM"), *((one, one) for one in STOP_SIGNALS))),
        ), "What of the image's own start is replaced."),
        Section("Health check", (
            Part("command", "Command", "Exit 0 is healthy", "words"),
            Part("intervalMs", "Every", kind="ms", default=30_000),
            Part("timeoutMs", "Fails after", kind="ms", default=5_000),
            Part("retries", "Failures in a row", "Until it is unhealthy", "number", default=3),
            Part("startPeriodMs", "Time to start", "The first success ends it", "ms", default=60_000),
        ), "A container is warm once this has passed.", "healthCheck", {"command": ["true"], "intervalMs": 30_000},
           instead=frozenset({IMAGES_OWN})),
        no_check,
        Section("Resources", (
            Part("cpus", "CPUs", kind="number", default=1),
            Part("memoryMb", "Memory", kind="mb", default=512),
            Part("pidsLimit", "Processes", kind="number", default=256),
            Part("tmpfsMb", "Temporary files, in RAM", kind="mb", default=64),
            Part("diskMb", "Disk, all volumes", "Empty: no limit", "mb"),
            Part("shmMb", "Shared memory (/dev/shm)", "Empty: as large as temporary files", "mb"),
        ), path="resources"),
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
            Part("publish", "Also on a port of the host's 127.0.0.1", kind="flag"),
        ), path="ports", blank={"name": "http", "containerPort": 8080}, is_list=True, one="Port"),
        Section("User", (
            Part("uid", "User id", "Empty: one of its own for each container", "number"),
            Part("gid", "Group id", "Empty: the number of the user id. 0 for images made for OpenShift", "number"),
            Part("groups", "More groups", "Numbers", "list"),
            Part("name", "Name", "Gives it an entry in /etc/passwd and /etc/group; needs a home"),
            Part("home", "Home", "HOME, such as the path of the state volume"),
        ), "Who the container's processes are.", "user", {"home": "/state"}),
        older_uid,
        Section("Security", (
            Part("readOnlyRootFilesystem", "The root file system is read only", kind="flag", default=True),
            Part("networkMode", "Network", kind="choice", options=[(one, one) for one in networks], default="bridge"),
            Part("runtime", "Runtime", kind="choice",
                 options=[("", "the engine's own"), *((one, one) for one in allowed.allowed_runtimes)]),
        ), path="security"),
        hook("postClaim", "After a claim", "Runs inside once the tenant's state, config and secrets are there."),
        hook("preRelease", "Before a release", "Runs inside before the container is stopped and saved."),
        hook("preSave", "Before a save while it works", "Runs inside before each periodic save and each by hand."),
        Section("Directories in memory", (
            Part("path", "Path in the container", f"{mounts.SCRATCH} is the scratch space itself"),
            Part("sizeMb", "Size", "Counts towards the memory", "mb"),
            Part("exec", "Programs may run from it", kind="flag"),
        ), "Empty at the start, the container's user's, gone with the container.", "tmpfs",
           {"path": "/scratch", "sizeMb": 64}, is_list=True, one="Directory"),
        Section("Limits of processes", (
            Part("name", "Name", kind="choice", options=[(one, one) for one in sorted(limits.CEILINGS)]),
            Part("soft", "Soft", "Empty: as hard; -1: none", "number"),
            Part("hard", "Hard", "-1: none, where the deployment allows it", "number"),
        ), "4,096 open files and no core files where nothing is said.", "ulimits",
           {"name": "nofile", "hard": 65536}, is_list=True, one="Limit"),
        *_devices(allowed.allowed_devices),
        Section("Names and labels", (
            Part("extraHosts", "More hosts", "name=address, one in a line, for /etc/hosts", "map"),
            Part("dns", "Resolvers", "Addresses; empty: the node's. A pool's own go first", "list"),
            Part("labels", "Labels", "NAME=value, one in a line, for tools that look at the engine", "map"),
        )),
        Section("Seed", (
            Part("seed", "First state", "A directory below the deployment's seeds, for tenants that have none"),
        )),
        Section("Config schema", (
            Part("configSchema", "JSON Schema (2020-12)", "Claims whose config does not fit are refused", "json"),
        )),
    )  # fmt: skip

    def sections(value: dict[str, Any]) -> Sequence[Section]:
        has_check = isinstance(value.get("healthCheck"), dict)
        hidden = [no_check] if has_check else []
        if get(value, "/security/runAsUser") is None:
            hidden.append(older_uid)
        return [one for one in made if all(one is not other for other in hidden)]

    return sections


def _devices(allowed: Sequence[str]) -> list[Section]:
    """What the deployment allows; nothing where that is nothing."""
    named = [one for one in allowed if one != permits.GPUS]
    shown = []
    if named:
        shown.append(Section("Devices", (
            Part("path", "Device", kind="choice", options=[(one, one) for one in named]),
            Part("permissions", "The container may", kind="choice", default="rw",
                 options=(("rw", "read and write"), ("r", "read"))),
        ), "Of the node, under the same path. Tenants who come one after another meet the same device.", "devices",
           {"path": named[0]}, is_list=True, one="Device"))  # fmt: skip
    if permits.GPUS in allowed:
        shown.append(Section("GPUs", (
            Part("count", "How many", "-1: all", "number"),
            Part("ids", "Or these", "Index or id, one in a line", "list"),
        ), "The node's engine needs the vendor's container toolkit.", "resources/gpus", {"count": 1}))  # fmt: skip
    return shown


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
