"""Connections of this process's clients, only to addresses where a sink may be (``outbound``).

The check uses the resolved address that is then connected to. A connection is closed at the deadline of its query
(``deadlines``).
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from syncing.sinks import deadlines, outbound


class Guarded(HTTPConnection):
    """A connection mixin that raises SinkClosed for an address where no sink may be.

    All addresses of a host share the time limit of one query.
    """

    open_addresses = staticmethod(outbound.open_addresses)
    """The addresses of a host and port to which it may connect."""

    def _new_conn(self) -> socket.socket:
        host, timeout = self._dns_host, self.timeout
        try:
            addresses = self.open_addresses(host.strip("[]").rstrip("."), self.port or self.default_port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: ConnectTimeoutError | None = None
        for address in addresses:
            self._dns_host, self.timeout = address, deadlines.left_of(timeout)
            try:
                connection = super()._new_conn()
            except ConnectTimeoutError as error:
                failure = failure or error
            else:
                deadlines.use(connection)
                return connection
            finally:
                self._dns_host, self.timeout = host, timeout
        raise failure or NewConnectionError(self, f"{host} has no address")

    def request(self, *arguments: Any, **more: Any) -> None:
        if self.sock is not None:
            deadlines.use(self.sock)
        super().request(*arguments, **more)


class _Http(Guarded, HTTPConnection):
    pass


class _Https(Guarded, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


POOLS = {"http": _HttpPool, "https": _HttpsPool}


class Adapter(HTTPAdapter):
    """For a session of ``requests``."""

    pools: ClassVar[dict[str, Any]] = POOLS

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*args, **more)
        manager.pool_classes_by_scheme = self.pools
        return manager
