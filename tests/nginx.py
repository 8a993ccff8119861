"""A real nginx with the example configuration of ``deploy/``; only its names and ports are replaced."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from boilerhouse.operations.supervisor import free_port

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "deploy" / "nginx" / "boilerhouse.conf"
NAME = "boilerhouse.example.com"
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"


class Nginx:
    """TLS on a free port of 127.0.0.1, in front of web processes. ``edits`` change the example further."""

    def __init__(self, directory: Path, web_ports: tuple[int, int], edits: tuple[tuple[str, str], ...] = ()) -> None:
        self.directory, self.port = directory, free_port()
        self.certificate, key = directory / "fullchain.pem", directory / "privkey.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
             "-out", self.certificate, "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        text = EXAMPLE.read_text()
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("/etc/ssl/boilerhouse/fullchain.pem", str(self.certificate)),
            ("/etc/ssl/boilerhouse/privkey.pem", str(key)),
            ("127.0.0.1:8001", f"127.0.0.1:{web_ports[0]}"),
            ("127.0.0.1:8002", f"127.0.0.1:{web_ports[1]}"),
            *edits,
        ):
            assert old in text, old
            text = text.replace(old, new)
        site, main = directory / "site.conf", directory / "nginx.conf"
        site.write_text(text)
        kept = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        main.write_text(
            f"user root; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn; daemon off;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; client_body_temp_path {directory}/body; {kept} include {site}; }}\n"
        )
        subprocess.run([PROGRAM, "-t", "-q", "-c", str(main)], check=True)
        self.process = subprocess.Popen([PROGRAM, "-c", str(main)], start_new_session=True)
        self._wait()

    @property
    def url(self) -> str:
        """By address, as its certificate has it."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def named(self) -> str:
        """As a browser opens it."""
        return f"https://{NAME}:{self.port}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, (self.directory / "nginx.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
