"""Files in a held container: below ``/tenants/{id}`` for who may act for the tenant, below ``/containers/{id}`` for
staff."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import boolean, integer
from boilerhouse.api.schema import CURSOR, flag, operation, whole
from boilerhouse.core.models import Role
from boilerhouse.process import budgets
from boilerhouse.web.receiving import Receiving
from pools.guest.file_frames import FileInfo
from pools.guest.files import MAX_DEPTH, MAX_ENTRIES
from tenants import file_links, files
from tenants.api import file_answers
from tenants.api.container_ids import id_of
from tenants.api.file_answers import conditions_of, owners_of
from tenants.api.file_fields import (
    ANY_PATH,
    MODE,
    PATH,
    PATH_ENCODING,
    TYPE,
    FileOutput,
    FilePageOutput,
    LinkInput,
    LinkOutput,
    MakeDirectoryInput,
    MoveInput,
    RemovedOutput,
    UnpackedOutput,
    body_path,
    cursor_of,
    is_percent,
    mode_of,
    parents_of,
    path_of,
    render,
    render_page,
)
from tenants.files import HeldFiles

DEFAULT_ENTRIES = 200
PARENTS = flag("parents", "Make missing parent directories.")
UPLOAD = {"application/octet-stream": OpenApiTypes.BINARY}
ACTS = "The container's file system has changed, which no transaction takes back."
READS = {
    403: "file_denied",
    404: "file_not_found",
    409: "not_assigned not_claimed releasing no_guest_agent is_directory not_directory file_busy",
    502: "files_lost files_failed",
    503: "too_many_transfers other_node node_unreachable",
    504: "files_stalled",
}
CHANGES = {
    **READS,
    409: f"{READS[409]} file_exists other_file_system",
    412: "precondition_failed",
    507: "no_space",
}


class FilesView(ApiView):
    """``held`` finds whose files; what staff reads is recorded, and what anybody changes."""

    lane = "slow"
    viewer_may_read = False

    def held(self, of: dict[str, str]) -> HeldFiles:
        if "tenant_id" in of:
            return files.of_tenant(of["tenant_id"])
        return files.of_container(id_of(of["container_id"]))

    def note_read(self, held: HeldFiles, path: bytes) -> None:
        key: Any = self.request.auth
        if key.role != Role.TENANT:
            held.note("file_read", path)

    def shown(self, path: bytes, info: Any, status: int = 200) -> Response:
        data = render(path, info, is_percent=is_percent(self.request))
        return Response(data, status=status, headers={"ETag": info.etag})


class TenantFileView(FilesView):
    streamed_methods = ("PUT",)

    @operation(
        operation_id="readTenantFile",
        summary="Read a file",
        description="The bytes of a regular file; links are followed. `Range` (one range), `If-None-Match` and"
        " `If-Range` work. The file that was opened is read to its end, whatever gets its name meanwhile; if it"
        " becomes shorter, the connection is closed before the announced length. Secrets of the claim are never shown.",
        parameters=[PATH, PATH_ENCODING],
        problems=READS,
        responses=TYPE,
    )
    def get(self, request: Any, **of: str) -> HttpResponse:
        held, path = self.held(of), path_of(request)
        self.note_read(held, path)
        return file_answers.download(request, held, path, request.auth.pk, owners_of(request.auth, held))

    @operation(
        operation_id="writeTenantFile",
        summary="Write a file",
        description="The body is the content, of any length. It becomes visible at once, when all of it has arrived;"
        " until then, and if anything fails, the old content stays. A link is written through. Without `mode`, a file"
        " keeps its own and a new one has 0644. `If-Match` compares the `ETag` when the file gets its name;"
        " `If-None-Match: *` writes only a new file.",
        acts=ACTS,
        parameters=[PATH, PATH_ENCODING, MODE, PARENTS],
        request=UPLOAD,
        is_body_optional=True,
        problems=CHANGES,
        responses={200: FileOutput},
    )
    def put(self, request: Any, **of: str) -> HttpResponse | Response:
        file_answers.refuse_encoding(request)
        held, path = self.held(of), path_of(request)
        mode, conditions, parents = mode_of(request), conditions_of(request), parents_of(request)
        begin = partial(_begin_put, held, path, mode, conditions, parents=parents)
        done = file_answers.upload(request, begin, held, request.auth.pk)
        if isinstance(done, Receiving):
            return done
        return self.shown(held.place(path).path, done)

    @operation(
        operation_id="removeTenantFile",
        summary="Remove a file or directory",
        description="A link is removed, not what it leads to. A directory needs `recursive=true`.",
        acts=ACTS,
        parameters=[PATH, PATH_ENCODING, flag("recursive", "Remove a directory with all that is in it.")],
        problems=CHANGES,
        responses={200: RemovedOutput},
    )
    def delete(self, request: Any, **of: str) -> Response:
        held, path = self.held(of), path_of(request)
        held.note("file_remove", path)
        return Response({"removed": held.access.remove(held.place(path), recursive=boolean(request, "recursive"))})


def _begin_put(held: HeldFiles, path: bytes, mode: Any, conditions: Any, size: int, *, parents: bool) -> Any:
    upload = held.access.begin_put(held.place(path), mode, size, conditions, parents=parents)
    held.note("file_write", path)
    return upload


class TenantFileListView(FilesView):
    @operation(
        operation_id="listTenantFiles",
        summary="List a directory",
        description="Parents before their content, names by their bytes. With `depth` above 1, directories below are"
        " listed too; links and other file systems are not entered.",
        parameters=[
            ANY_PATH, PATH_ENCODING, whole("depth", 1, MAX_DEPTH, "Levels (default 1)."),
            whole("limit", 1, MAX_ENTRIES, f"Entries of one answer (default {DEFAULT_ENTRIES})."), CURSOR,
        ],
        problems=READS,
        responses=FilePageOutput,
    )  # fmt: skip
    def get(self, request: Any, **of: str) -> Response:
        depth = integer(request, "depth", 1, 1, MAX_DEPTH)
        limit = integer(request, "limit", DEFAULT_ENTRIES, 1, MAX_ENTRIES)
        cursor = cursor_of(request)
        held, path, percent = self.held(of), path_of(request, is_required=False), is_percent(request)
        place = held.place(path)
        entries, has_more = held.access.list_directory(place, depth, limit, cursor)
        return Response(render_page(place.path, entries, has_more=has_more, is_percent=percent))


class TenantFileStatView(FilesView):
    @operation(
        operation_id="showTenantFile",
        summary="Show what a path names",
        description="A link itself, not what it leads to.",
        parameters=[PATH, PATH_ENCODING],
        problems=READS,
        responses=FileOutput,
    )
    def get(self, request: Any, **of: str) -> Response:
        held = self.held(of)
        place = held.place(path_of(request))
        return self.shown(place.path, held.access.stat(place))


class TenantDirectoryView(FilesView):
    @operation(
        operation_id="makeTenantDirectory",
        summary="Make a directory",
        description="201: it is new. 200: it was there.",
        acts=ACTS,
        request=MakeDirectoryInput,
        problems=CHANGES,
        responses={200: FileOutput, 201: FileOutput},
    )
    def post(self, request: Any, **of: str) -> Response:
        data = self.read(MakeDirectoryInput).validated_data
        held, path = self.held(of), body_path(data, "path")
        held.note("file_directory", path)
        place = held.place(path)
        info, is_new = held.access.make_directory(place, int(data["mode"], 8), parents=data["parents"])
        return self.shown(place.path, info, 201 if is_new else 200)


class TenantFileMoveView(FilesView):
    @operation(
        operation_id="moveTenantFile",
        summary="Move a file or directory",
        description="At once, and within one file system. Without `overwrite`, 409 if something has the new name.",
        acts=ACTS,
        request=MoveInput,
        problems=CHANGES,
        responses={200: FileOutput},
    )
    def post(self, request: Any, **of: str) -> Response:
        data = self.read(MoveInput).validated_data
        held, source, to = self.held(of), body_path(data, "source"), body_path(data, "to")
        held.note("file_move", source, to=files.shown(to))
        target = held.place(to).path
        return self.shown(target, held.access.move(held.place(source), target, overwrite=data["overwrite"]))


class TenantFileWatchView(FilesView):
    @operation(
        operation_id="watchTenantFiles",
        summary="Follow changes below a directory",
        description="Server-sent events: `ready`, then `created`, `written`, `removed`, `renamed` (the old name of what"
        " was moved; the new one is `created`), `changed` (permissions and the like) with `{path, pathEncoding,"
        " isDirectory}`, `overflow` (changes were missed, or there are more than 1024 directories: read what matters"
        " anew), and `end` when the directory or the claim is gone. Paths are relative to the directory.",
        parameters=[ANY_PATH, PATH_ENCODING, flag("recursive", "Directories below too.")],
        problems=READS,
        responses={(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="Server-sent events")},
    )
    def get(self, request: Any, **of: str) -> HttpResponse:
        recursive, percent = boolean(request, "recursive"), is_percent(request)
        held, path, key = self.held(of), path_of(request, is_required=False), request.auth
        owners = owners_of(key, held)
        return file_answers.watch(held, path, key.pk, owners, recursive=recursive, is_percent=percent)


class TenantFileArchiveView(FilesView):
    streamed_methods = ("PUT",)

    @operation(
        operation_id="readTenantArchive",
        summary="Read a directory as a tar archive",
        description="Regular files, directories and links; hard links become copies. Sockets, FIFOs and devices are"
        " left out, and so are other file systems below the directory. If a file cannot be read, the connection is"
        " closed before the archive ends.",
        parameters=[ANY_PATH, PATH_ENCODING],
        problems=READS,
        responses={(200, "application/x-tar"): OpenApiTypes.BINARY},
    )
    def get(self, request: Any, **of: str) -> HttpResponse:
        held, path = self.held(of), path_of(request, is_required=False)
        self.note_read(held, path)
        return file_answers.archive(held, path, request.auth.pk, owners_of(request.auth, held))

    @operation(
        operation_id="writeTenantArchive",
        summary="Unpack a tar archive into a directory",
        description="The body is a tar archive (GNU, POSIX or ustar), not compressed. No name may leave the directory,"
        " no link is followed, set-id bits are dropped; devices, FIFOs and what leaves the directory end it with 422"
        " `bad_archive`. Each file appears whole; if it ends early, the entries before stay.",
        acts=ACTS,
        parameters=[ANY_PATH, PATH_ENCODING, PARENTS],
        request={"application/x-tar": OpenApiTypes.BINARY},
        is_body_optional=True,
        problems={**CHANGES, 422: "bad_archive"},
        responses={200: UnpackedOutput},
    )
    def put(self, request: Any, **of: str) -> HttpResponse | Response:
        file_answers.refuse_encoding(request)
        held, path, parents = self.held(of), path_of(request, is_required=False), parents_of(request)
        begin = partial(_begin_unpack, held, path, parents=parents)
        done = file_answers.upload(request, begin, held, request.auth.pk)
        return done if isinstance(done, Receiving) else Response({"entries": done})


def _begin_unpack(held: HeldFiles, path: bytes, size: int, *, parents: bool) -> Any:
    upload = held.access.begin_unpack(held.place(path), parents=parents)
    held.note("file_unpack", path)
    return upload


class TenantFileLinkView(FilesView):
    @operation(
        operation_id="signTenantFileLink",
        summary="Sign a link to a file",
        description="A URL that needs no key: whoever has it may `GET` (and `HEAD`) or `PUT` this one path until it"
        " expires, the claim ends, or the key that made it is revoked.",
        acts="A signature is no row.",
        request=LinkInput,
        problems={409: READS[409]},
        responses={201: LinkOutput},
    )
    def post(self, request: Any, **of: str) -> Response:
        data = self.read(LinkInput).validated_data
        held, path = self.held(of), body_path(data, "path")
        place, expires_at = held.place(path), int(time.time()) + data["expires_in_s"]
        held.note("file_link", path, method=data["method"], expiresInS=data["expires_in_s"])
        link = file_links.FileLink(
            held.tenant_id, held.generation, data["method"], place.path, expires_at, request.auth.pk
        )
        url = request.build_absolute_uri(f"{_base(request)}/file-links/{file_links.sign(link)}")
        at = datetime.fromtimestamp(expires_at, UTC).isoformat().replace("+00:00", "Z")
        return Response({"url": url, "method": data["method"], "expiresAt": at}, status=201)


def _base(request: Any) -> str:
    path: str = request._request.path
    return path[: path.index("/api/v1") + len("/api/v1")]


class FileLinkView(ApiView):
    """What a signed link leads to; the token in the path is the permission."""

    lane = "slow"
    is_public = True
    streamed_methods = ("PUT",)

    @staticmethod
    def owners_of_head(path: str) -> tuple[budgets.Owner, ...] | None:
        """Who sends the body of this request; None if the link is not valid."""
        try:
            link = file_links.read(path.rpartition("/")[2])
        except file_links.LinkInvalid:
            return None
        return (budgets.tenant(link.tenant_id),)

    def _take_place(self, request: Any, of: Mapping[str, Any]) -> None:
        """A link has no key: its tenant's places count."""
        self._hold = budgets.slow.enter(budgets.tenant(file_links.read(of["token"]).tenant_id))

    @operation(
        operation_id="readFileByLink",
        summary="Read a file by a signed link",
        problems={**READS, 403: "link_invalid file_denied", 429: "budget_exceeded"},
        responses=TYPE,
    )
    def get(self, request: Any, token: str) -> HttpResponse:
        link = file_links.read(token)
        held, owners = file_links.held_by(link, "GET"), (budgets.tenant(link.tenant_id),)
        return file_answers.download(request, held, link.path, link.key_id, owners)

    @operation(
        operation_id="writeFileByLink",
        summary="Write a file by a signed link",
        acts=ACTS,
        request=UPLOAD,
        is_body_optional=True,
        problems={**CHANGES, 403: "link_invalid file_denied", 429: "budget_exceeded"},
        responses={200: FileOutput},
    )
    def put(self, request: Any, token: str) -> HttpResponse | Response:
        file_answers.refuse_encoding(request)
        link = file_links.read(token)
        held = file_links.held_by(link, "PUT")
        begin = partial(_begin_put, held, link.path, None, conditions_of(request), parents=False)
        done = file_answers.upload(request, begin, held, link.key_id)
        if isinstance(done, Receiving):
            return done
        assert isinstance(done, FileInfo)
        return Response(render(link.path, done, is_percent=False), headers={"ETag": done.etag})


def _of_container(**names: str) -> Any:
    """The operations of a tenant's view once more, by container."""
    return extend_schema_view(**{method: extend_schema(operation_id=name) for method, name in names.items()})


@_of_container(get="readContainerFile", put="writeContainerFile", delete="removeContainerFile")
class ContainerFileView(TenantFileView):
    pass


@_of_container(get="listContainerFiles")
class ContainerFileListView(TenantFileListView):
    pass


@_of_container(get="showContainerFile")
class ContainerFileStatView(TenantFileStatView):
    pass


@_of_container(post="makeContainerDirectory")
class ContainerDirectoryView(TenantDirectoryView):
    pass


@_of_container(post="moveContainerFile")
class ContainerFileMoveView(TenantFileMoveView):
    pass


@_of_container(get="watchContainerFiles")
class ContainerFileWatchView(TenantFileWatchView):
    pass


@_of_container(get="readContainerArchive", put="writeContainerArchive")
class ContainerFileArchiveView(TenantFileArchiveView):
    pass


@_of_container(post="signContainerFileLink")
class ContainerFileLinkView(TenantFileLinkView):
    pass
