"""A server that returns the secrets it was sent (P10)."""

from __future__ import annotations

import http.server
import threading

import pytest

from pools.spec import Owner
from syncing import errors, rclone
from syncing.jail import Jail
from syncing.sinks.webdav import WebDavSink

SECRET = "TOKEN-CANARY-123"


class Echo(http.server.BaseHTTPRequestHandler):
    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = f"Invalid token: {self.headers['Authorization']}".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_PUT = do_MKCOL = do_PROPFIND = do_MOVE = do_DELETE = refuse

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_neither_rclone_nor_we_repeat_it(tmp_path, data_dir):
    """rclone's error lines are the run's error, its event and our log (P10)."""
    (tmp_path / "file").write_text("x")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        sink = WebDavSink(f"http://127.0.0.1:{server.server_port}", (("Authorization", f"Bearer {SECRET}"),))
        with (tmp_path / "lock").open("w") as lock:
            with pytest.raises(errors.SyncFailed, match="Invalid token") as failed:
                arguments = rclone.upload(sink, "t/a", [], deletes=False, inside="", backup="b/a")
                rclone.run(arguments, sink, Jail(tmp_path, Owner(0, 0), writable=False), lock.fileno())
            with pytest.raises(errors.SyncFailed, match="answered 403") as refused:
                sink.put("t/a", b"x")
        server.shutdown()
    for one in (failed, refused):
        assert SECRET not in one.value.detail
