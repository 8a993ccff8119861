"""SFTP: a directory on an SSH server.

Servers run no programs for us, so there are no checksums: a save sends every file, and the marker contains the times. A
server is identified only by its host key, which the spec contains; one with another key does not get the password.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets as randomness
import stat
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from boilerhouse.process import stalls
from syncing import endpoints
from syncing.errors import (
    HostKeyUnknown,
    SinkDenied,
    SinkMissing,
    SinkRefused,
    SinkStumbled,
    SinkUnreachable,
    SinkUnreliable,
    SyncFailed,
)
from syncing.sinks import deadlines, refusals, sizes
from syncing.sinks.base import (
    CLAIM_DEADLINE_S,
    COPY_DEADLINE_S,
    LISTING_DEADLINE_S,
    REMOTE,
    RUN_DEADLINE_S,
    FormField,
    Sink,
    whole_s,
)
from syncing.sinks.retries import retry

if TYPE_CHECKING:
    from syncing.sinks.inputs import InputClass
    from syncing.sinks.sftp_access import Client, Server

T = TypeVar("T")
PARTIAL = ".boilerhouse-partial-"
AT_ONCE = 4
"""How many files rclone transfers at once: each uses a connection, and servers refuse more than about ten."""
TRIES = 20
"""How often creating a directory is retried, because a concurrent delete may prune it."""
_SIGNS: refusals.Signs = (
    (("host key mismatch", "no key is pinned", "no common algorithm for host key"), HostKeyUnknown),
    (("unable to authenticate", "unexpected message type 51", "ssh_fx_permission_denied"), SinkDenied),
    (("couldn't connect ssh", "ssh_fx_connection_lost", "failed to dial"), SinkUnreachable),
)


@dataclass(frozen=True, slots=True)
class SftpSink(Sink):
    """A directory on a server, by its absolute path."""

    host: str
    port: int
    user: str
    path: str
    host_keys: tuple[str, ...]
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)

    type: ClassVar[str] = "sftp"
    label: ClassVar[str] = "SFTP"
    form: ClassVar[tuple[FormField, ...]] = (
        FormField("host", "Host", "A name or an address"),
        FormField("port", "Port", "Leave empty for 22", "number"),
        FormField("user", "User"),
        FormField("path", "Directory", "An absolute path; must exist"),
        FormField("hostKeys", "Host keys", "One per line, as printed by ssh-keyscan, without the name", "list"),
        FormField("password", "Password", "Stored encrypted. Leave empty to keep it", "secret"),
        FormField("privateKey", "Private key", "Instead of a password: PEM, without a passphrase", "secret"),
    )
    rclone_signs: ClassVar[refusals.Signs] = _SIGNS
    compares: ClassVar[tuple[str, ...]] = ("--ignore-times",)
    resumes_saves: ClassVar[bool] = False

    @classmethod
    def from_spec(cls, sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Self:
        """The sink of a spec's body and its secrets ``{password}`` or ``{privateKey}``."""
        return cls(
            sink["host"], sink.get("port") or 22, sink["user"], sink["path"], tuple(sink["hostKeys"]),
            secrets.get("password") or "", secrets.get("privateKey") or "",
        )  # fmt: skip

    @classmethod
    def serializer(cls) -> InputClass:
        from syncing.sinks.sftp_input import SftpSinkInput

        return SftpSinkInput

    @property
    def place(self) -> tuple[str, str]:
        return self.address, self.path

    @property
    def address(self) -> str:
        return f"sftp://{self._host.lower()}:{self.port}"

    @property
    def _host(self) -> str:
        """In the form used before a colon and a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def secrets(self) -> Iterator[str]:
        yield from (secret for secret in (self.password, self.private_key) if secret)
        yield from (line for line in self.private_key.splitlines() if not line.startswith("-"))

    def area(self, template: str) -> tuple[tuple[str, str], str]:
        path = posixpath.normpath(self.path).strip("/")
        return (endpoints.server(self.address), ""), f"{path}/{template}" if path else template

    def addresses(self) -> list[str]:
        return endpoints.resolved(self.address)

    def above(self) -> Iterator[tuple[Sink, str]]:
        names = [name for name in self.path.split("/") if name]
        for depth in range(len(names) - 1, -1, -1):
            yield replace(self, path="/" + "/".join(names[:depth])), "/".join(names[depth:])

    # rclone ---------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        values = {
            "TYPE": "sftp",
            "HOST": self._host,
            "PORT": str(self.port),
            "USER": self.user,
            "PASS": _obscured(self.password) if self.password else "",
            "KEY_PEM": self.private_key.replace("\n", "\\n"),
            "HOST_KEYS": ",".join(self.host_keys),
            "SHELL_TYPE": "none",  # it would run programs on the server
            "DISABLE_HASHCHECK": "true",
            "SKIP_LINKS": "true",
        }
        return {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in values.items() if value}

    def remote(self, location: str) -> str:
        return f"{REMOTE}:{self._path(location)}/"

    def flags(self, location: str) -> list[str]:
        return ["--sftp-encoding=Raw", f"--transfers={AT_ONCE}", f"--checkers={AT_ONCE}"]

    # The client in this process -------------------------------------------------------------------------

    def get(self, key: str, deadline_s: int) -> bytes | None:
        def get(client: Client) -> bytes | None:
            try:
                size = _size(client, self._bytes(key))
                if size is None:
                    return None
                sizes.check(size, key)
                with client.open(self._bytes(key), "rb") as file:
                    file.prefetch(size)
                    return sizes.joined(iter(lambda: file.read(sizes.CHUNK), b""), key)
            except FileNotFoundError:
                return None

        return self._ask(deadline_s, get)

    def put(self, key: str, content: bytes) -> None:
        def put(client: Client) -> None:
            with self._written(client, key, content) as new:
                client.posix_rename(new, self._bytes(key))

        self._ask(RUN_DEADLINE_S, put, len(content))

    def create(self, key: str, content: bytes) -> bool:
        return self._ask(RUN_DEADLINE_S, lambda client: self._create(client, key, content), len(content))

    def _create(self, client: Client, key: str, content: bytes) -> bool:
        """With the protocol's own rename, which must not replace a file; tested, because some servers do."""
        for _ in range(2):
            with self._written(client, key, content) as new:
                try:
                    client.rename(new, self._bytes(key))
                except FileNotFoundError:
                    raise
                except OSError:
                    if _size(client, self._bytes(key)) is None:
                        raise
                    return True
        return False

    def delete(self, key: str) -> None:
        def delete(client: Client) -> None:
            with contextlib.suppress(FileNotFoundError):
                client.remove(self._bytes(key))
            self._prune(client, posixpath.dirname(key))

        self._ask(RUN_DEADLINE_S, delete)

    def copy(self, source: str, target: str) -> None:
        """Through this process, because the protocol has no copy."""
        size = self._ask(RUN_DEADLINE_S, lambda client: _size(client, self._bytes(source))) or 0

        def copy(client: Client) -> None:
            status = client.stat(self._bytes(source))
            with client.open(self._bytes(source), "rb") as file:
                file.prefetch(status.st_size or 0)
                content = iter(lambda: file.read(sizes.CHUNK), b"")
                with self._written(client, target, content) as new:
                    client.utime(new, (status.st_atime or 0, status.st_mtime or 0))
                    client.posix_rename(new, self._bytes(target))

        self._ask(COPY_DEADLINE_S, copy, 2 * size)

    def move(self, source: str, target: str) -> None:
        def move(client: Client) -> None:
            for last in range(TRIES):
                self._make(client, posixpath.dirname(target))
                try:
                    client.posix_rename(self._bytes(source), self._bytes(target))
                    break
                except FileNotFoundError:
                    if last == TRIES - 1 or _size(client, self._bytes(source)) is None:
                        raise
            self._prune(client, posixpath.dirname(source))

        self._ask(RUN_DEADLINE_S, move)

    def has_objects(self, location: str, deadline_s: int) -> bool:
        with deadlines.within(whole_s(deadline_s)):
            if next(self._walk(location, deadline_s), None) is not None:
                return True
            self._ask(deadline_s, self._check_root)
            return False

    def names(self, location: str) -> Iterator[tuple[str, int]]:
        return self._walk(location, RUN_DEADLINE_S)

    def folders(self, location: str) -> Iterator[str]:
        for name, size in self._list(location, RUN_DEADLINE_S):
            if size is None:
                yield f"{location}/{name}"

    def delete_all(self, location: str) -> None:
        folders = []
        for folder in self._folders_below(location):
            stalls.step()
            self._ask(RUN_DEADLINE_S, partial(self._empty, folder))
            folders.append(folder)
        for folder in reversed(folders):
            self._ask(RUN_DEADLINE_S, partial(_remove_folder, self._bytes(folder)))

    def tidy(self, location: str) -> None:
        self._ask(RUN_DEADLINE_S, lambda client: self._prune(client, location))

    def _walk(self, location: str, deadline_s: int) -> Iterator[tuple[str, int]]:
        todo, until = [""], time.monotonic() + LISTING_DEADLINE_S
        while todo:
            deadlines.check()
            if time.monotonic() > until:
                raise SinkUnreliable(f"A listing of {self._where} has not ended after {LISTING_DEADLINE_S} s.")
            inside = todo.pop()
            for name, size in self._list(f"{location}/{inside}".rstrip("/"), deadline_s):
                stalls.step()
                if size is None:
                    todo.append(f"{inside}{name}/")
                else:
                    yield f"{inside}{name}", size

    def _folders_below(self, location: str) -> Iterator[str]:
        """The location and all its folders, each before its subfolders."""
        todo = [location]
        while todo:
            yield (folder := todo.pop())
            todo += [f"{folder}/{name}" for name, size in self._list(folder, RUN_DEADLINE_S) if size is None]

    def _list(self, location: str, deadline_s: int) -> list[tuple[str, int | None]]:
        """Name and size of a folder's entries; None for a folder. Links and pipes are not objects."""

        def entries(client: Client) -> list[tuple[str, int | None]]:
            listing: list[tuple[str, int | None]] = []
            with contextlib.suppress(FileNotFoundError):
                for name, status in client.entries(self._bytes(location)):
                    mode = status.st_mode or 0
                    if stat.S_ISDIR(mode):
                        listing.append((name, None))
                    elif stat.S_ISREG(mode):
                        listing.append((name, status.st_size or 0))
            return listing

        return self._ask(deadline_s, entries)

    def _empty(self, folder: str, client: Client) -> None:
        """Delete a folder's entries except folders."""
        with contextlib.suppress(FileNotFoundError):
            for name, status in list(client.entries(self._bytes(folder))):
                if not stat.S_ISDIR(status.st_mode or 0):
                    with contextlib.suppress(FileNotFoundError):
                        client.remove(self._bytes(f"{folder}/{name}"))

    @contextlib.contextmanager
    def _written(self, client: Client, key: str, content: bytes | Iterator[bytes]) -> Iterator[bytes]:
        """A new file beside the key's, with the complete content; deleted unless it is renamed in the block."""
        new = self._bytes(posixpath.join(posixpath.dirname(key), f"{PARTIAL}{randomness.token_hex(8)}"))
        for last in range(TRIES):
            self._make(client, posixpath.dirname(key))
            try:
                file = client.open(new, "wbx")
                break
            except FileNotFoundError:
                if last == TRIES - 1:
                    raise
        try:
            with file:
                file.set_pipelined(True)
                for part in [content] if isinstance(content, bytes) else content:
                    file.write(part)
            yield new
        finally:
            with contextlib.suppress(OSError, EOFError):
                client.remove(new)

    def _make(self, client: Client, folder: str) -> None:
        """Create the folder and its parents, but not the root. Raises SinkMissing."""
        if not folder or _is_folder(client, self._bytes(folder)):
            return
        self._check_root(client)
        names = folder.split("/")
        for depth in range(1, len(names) + 1):
            with contextlib.suppress(OSError):  # it exists, or the next operation reports the error
                client.mkdir(self._bytes("/".join(names[:depth])), 0o755)

    def _prune(self, client: Client, folder: str) -> None:
        """Remove empty folders, upwards: object stores have none, and a file may come in their place."""
        while folder:
            try:
                client.rmdir(self._bytes(folder))
            except OSError:
                return
            folder = posixpath.dirname(folder)

    def _check_root(self, client: Client) -> None:
        if not _is_folder(client, os.fsencode(self.path)):
            raise SinkMissing(f"The directory {self.path} does not exist at {self.host}:{self.port}.")

    @property
    def _server(self) -> Server:
        from syncing.sinks.sftp_access import Server

        return Server(self.host, self.port, self.user, self.host_keys, self.password, self.private_key)

    @property
    def _where(self) -> str:
        return f"{self.address}{self.path}"

    def _path(self, key: str) -> str:
        if ".." in key.split("/") or key.startswith("/"):
            raise SyncFailed(f"Not a key: {key[:100]}")
        return f"{self.path.rstrip('/')}/{key}"

    def _bytes(self, key: str) -> bytes:
        return os.fsencode(self._path(key).rstrip("/") or "/")

    def _ask(self, deadline_s: int, ask: Callable[[Client], T], size: int = 0) -> T:
        """The result of ``ask``: a claim's query is made once, a run's with retries."""
        from syncing.sinks.sftp_access import connected

        def once() -> T:
            with (
                deadlines.within(whole_s(deadline_s, size)),
                self._translated(),
                connected(self._server, deadline_s) as client,
            ):
                return ask(client)

        return once() if deadline_s == CLAIM_DEADLINE_S else retry(once)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import paramiko

        try:
            yield
        except paramiko.AuthenticationException as error:
            raise SinkDenied(f"{self.address} refuses the user {self.user} and what the spec gives.") from error
        except PermissionError as error:
            raise SinkDenied(f"{self._where} answered: {refusals.words(error.strerror)}.") from error
        except (EOFError, TimeoutError, ConnectionError, paramiko.SSHException) as error:
            kind = SinkStumbled if isinstance(error, EOFError | TimeoutError) else SinkUnreachable
            raise kind(f"{self.address} cannot be reached ({type(error).__name__}).") from error
        except OSError as error:
            if error.errno is not None and not isinstance(error, FileNotFoundError):
                raise SinkUnreachable(f"{self.address} cannot be reached ({type(error).__name__}).") from error
            message = refusals.words(self.scrub(str(error.strerror or error)))
            raise SinkRefused(f"{self._where} answered: {message}.") from error


def _size(client: Client, path: bytes) -> int | None:
    """The size of a file; None if it is not a file."""
    try:
        status = client.stat(path)
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(status.st_mode or 0) else status.st_size or 0


def _is_folder(client: Client, path: bytes) -> bool:
    try:
        return stat.S_ISDIR(client.stat(path).st_mode or 0)
    except FileNotFoundError:
        return False


def _remove_folder(path: bytes, client: Client) -> None:
    with contextlib.suppress(FileNotFoundError):
        client.rmdir(path)


_OBSCURING = bytes.fromhex("9c935b48730a554d6bfd7c63c886a92bd390198eb8128afbf4de162b8b95f638")
"""rclone's published key: it takes a password only in this form, which hides nothing."""


def _obscured(password: str) -> str:
    """The output of ``rclone obscure``."""
    start = os.urandom(16)
    encryptor = Cipher(algorithms.AES(_OBSCURING), modes.CTR(start)).encryptor()
    return urlsafe_b64encode(start + encryptor.update(password.encode())).rstrip(b"=").decode()
