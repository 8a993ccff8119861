"""The gateway's nginx: its configuration from the template, which is the same everywhere, and how ``up`` runs it."""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Template

from django.conf import settings

from boilerhouse.core.deployment import gateway_dir
from boilerhouse.core.errors import Failed
from boilerhouse.operations import supervisor
from boilerhouse.operations.supervise import Program
from tenants.gateway.route_server import cookie_name, problem
from tenants.gateway.routes import NOWHERE, UNAVAILABLE

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "gateway.conf.template"
ACCOUNTS = ("www-data", "nginx", "nobody")
"""Of nginx's workers, which read what strangers send: the first that exists."""
QUESTIONS = 256
"""How many may wait for a web process, as during its restart."""
FILES = 32_768
"""Open files of a worker, two for each connection; fewer where the hard limit of this process is lower."""
GUARD = 'trap "kill -9 0" TERM; "$@" & wait $!; code=$?; trap "" TERM; kill -TERM 0; exit $code'
"""A shell as nginx's parent, because workers outlive a master that is killed and would keep the port."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where nginx keeps its files and listens, and whom it asks."""

    directory: Path
    listen: str
    """As nginx's ``listen`` takes it: ``127.0.0.1:8081``, ``443``."""
    domain: str
    socket: Path
    cookie: str
    user: str = ""
    """The account of nginx's workers; empty: that of the process, which is not root."""
    certificate: str = ""
    certificate_key: str = ""
    is_https: bool = False
    """Whether clients use TLS, which this nginx or something in front of it ends."""

    def configuration(self) -> str:
        tls, listen = "", self.listen
        if self.certificate:
            listen += " ssl"
            tls = (
                f"ssl_certificate {self.certificate};\n    ssl_certificate_key {self.certificate_key};\n"
                "    ssl_protocols TLSv1.2 TLSv1.3;"
            )
        return Template(TEMPLATE.read_text()).substitute(
            directory=self.directory, listen=listen, domain_pattern=re.escape(self.domain), domain=self.domain,
            socket=self.socket, cookie=self.cookie, user=f"user {self.user};" if self.user else "", tls=tls,
            files=_files(), not_found=problem(NOWHERE, "$request_id"), unavailable=problem(UNAVAILABLE, "$request_id"),
            scheme="https" if self.is_https else "$scheme",
        )  # fmt: skip

    @property
    def program(self) -> Program:
        """nginx with the configuration in its directory. Raises Failed if it is not installed."""
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise Failed("nginx is not installed (apt-get install nginx-light)")
        main = self.directory / "nginx.conf"
        nginx_command = [nginx, "-e", "stderr", "-p", str(self.directory), "-c", str(main)]
        command = ["/bin/sh", "-c", GUARD, "gateway", *nginx_command]
        return Program("gateway", command, ends_as_a_group=True)

    def prepare(self) -> Program:
        """Write the configuration and have nginx check it. Raises Failed."""
        program = self.program
        (self.directory / "nginx.conf").write_text(self.configuration())
        checked = subprocess.run([*program.command[4:], "-t", "-q"], capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            raise Failed(f"nginx refuses its configuration: {checked.stderr.strip()[-300:]}")
        return program


def start(host: str, port: int) -> tuple[Program, socket.socket]:
    """The gateway of this deployment and the socket that it asks. Raises Failed if it cannot run here."""
    with supervisor.listen(host, port):
        pass  # nginx would try for some seconds, and say it at length
    directory = gateway_dir()
    account = next((name for name in ACCOUNTS if _uid(name) is not None), "") if os.geteuid() == 0 else ""
    try:
        _make(directory)
        asked = _listen(directory / "route.sock", account)
        name = f"[{host}]" if ":" in host else host
        made = Gateway(
            directory, f"{name}:{port}", settings.BOILERHOUSE_GATEWAY_DOMAIN, directory / "route.sock", cookie_name(),
            account, settings.BOILERHOUSE_GATEWAY_CERTIFICATE, settings.BOILERHOUSE_GATEWAY_CERTIFICATE_KEY,
            settings.BOILERHOUSE_GATEWAY_HTTPS,
        )  # fmt: skip
        return made.prepare(), asked
    except OSError as error:
        raise Failed(str(error)) from error


def _files() -> int:
    """How many files a worker may open: nginx cannot go above the hard limit."""
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return FILES if highest == resource.RLIM_INFINITY else min(FILES, highest)


def _make(directory: Path) -> None:
    """The directory; below /run, which nginx's workers may enter and not list, whatever the umask is."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.geteuid() == 0:
        for each in (directory.parent, directory):
            each.chmod(0o711)


def _listen(path: Path, account: str) -> socket.socket:
    """The socket of the file system that nginx's workers, and nobody else, may connect to."""
    path.unlink(missing_ok=True)
    asked = socket.socket(socket.AF_UNIX)
    asked.bind(str(path))
    if account:
        os.chown(path, _uid(account) or 0, -1)
    path.chmod(0o600)
    asked.listen(QUESTIONS)
    return asked


def _uid(account: str) -> int | None:
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        return None
