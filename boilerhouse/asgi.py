"""The web process: HTTP on a fixed set of threads, WebSockets on Channels."""

from __future__ import annotations

import os
import sys
import threading

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boilerhouse.settings")

import django

django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.urls import get_resolver, path, re_path

from boilerhouse.api.event_socket import EventSocket
from boilerhouse.dashboard.log_following import following
from boilerhouse.dashboard.terminal_socket import TerminalSocket
from boilerhouse.process import garbage_collection, processes
from boilerhouse.web.asgi_handler import ThreadedHandler
from boilerhouse.web.base_path import BelowBasePath
from boilerhouse.web.handshakes import OverTls
from pools import schemas
from syncing import sinks
from tenants.api.command_socket import CommandSocket
from tenants.gateway import route_server

processes.describe("web")
threading.Thread(target=processes.current, name="register", daemon=True).start()
sinks.warm()  # so that the first claim does not wait for it
threading.Thread(target=schemas.warm, name="schemas", daemon=True).start()
route_server.serve_if_passed()
assert get_resolver().url_patterns  # load every view now, not in the first request
sockets = URLRouter(
    [
        path("ws/events", EventSocket(following)),  # type: ignore[arg-type]  # authenticates keys itself
        re_path(r"^ws/tenants/(?P<tenant_id>[^/]+)/commands/(?P<command_id>[0-9a-f]{32})$", CommandSocket()),  # type: ignore[arg-type]
        re_path(r"^ws/containers/(?P<container_id>[^/]+)/commands/(?P<command_id>[0-9a-f]{32})$", CommandSocket()),  # type: ignore[arg-type]
        path("ws/terminal/<uuid:container_id>", TerminalSocket()),  # type: ignore[arg-type]
        re_path("", WebsocketDenier.as_asgi()),
    ]
)
application = BelowBasePath(
    ProtocolTypeRouter({"http": ThreadedHandler(), "websocket": OverTls(sockets)}), settings.BOILERHOUSE_BASE_PATH
)

# Pauses of the garbage collector were the 99th percentile (measured: 62-75 ms without, 13-16 ms with).
garbage_collection.tune()
# A thread that returns from a sink or a file must not wait 5 ms for the interpreter.
sys.setswitchinterval(0.0005)
