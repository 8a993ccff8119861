"""An HTTP proxy in front of a far end that fails on demand: refuses, breaks, hangs, cuts off, or delays."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REFUSALS = {
    "403": (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"),
    "500": (500, b"<Error><Code>InternalError</Code><Message>Try again.</Message></Error>"),
    "503": (503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"),
    "full": (507, b"<Error><Code>InsufficientStorage</Code><Message>no space left on device</Message></Error>"),
}


class FaultyProxy:
    """``fault`` befalls requests of ``methods`` whose path holds ``only``, after ``after`` of them went through."""

    def __init__(self, target: str) -> None:
        self.fault: str | None = None
        self.only, self.methods, self.after = "", ("GET", "PUT", "POST", "HEAD", "DELETE"), 0
        self.delay_s = 0.0
        parts = urlsplit(target)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(proxy.delay_s)
                fault = proxy.strikes(self.command, self.path)
                if fault == "hang":
                    time.sleep(60)
                if fault in ("hang", "cut"):
                    self.close_connection = True
                    return
                if fault:
                    status, answer = REFUSALS[fault]
                    self.reply(status, [("Content-Type", "application/xml")], answer)
                    return
                server = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
                try:
                    server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        server.putheader(name, value)
                    server.endheaders(body or None)
                    got = server.getresponse()
                    content = got.read()
                finally:
                    server.close()
                kept = [(n, v) for n, v in got.getheaders() if n.lower() not in ("transfer-encoding", "connection")]
                if self.command != "HEAD":
                    kept = [(n, v) for n, v in kept if n.lower() != "content-length"]
                self.reply(got.status, kept, content)

            def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # clients go away in the middle: that is what is tried

        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def strikes(self, method: str, path: str) -> str | None:
        with self._lock:
            if not self.fault or method not in self.methods or self.only not in path:
                return None
            self.after -= 1
            return self.fault if self.after < 0 else None

    def heal(self) -> None:
        self.fault, self.after = None, 0

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
