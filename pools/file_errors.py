"""Errors of operations on files in containers."""

from __future__ import annotations

from boilerhouse.core.errors import (
    Conflict,
    Failed,
    FieldError,
    Forbidden,
    Full,
    Invalid,
    NotFound,
    PreconditionFailed,
    TimedOut,
)


class FileMissing(NotFound):
    """There is no such file or directory."""

    code = "file_not_found"


class FileDenied(Forbidden):
    """The container's user may not do this."""

    code = "file_denied"


class FileExists(Conflict):
    """Something else has this name already."""

    code = "file_exists"


class IsDirectory(Conflict):
    """It is a directory."""

    code = "is_directory"


class NotDirectory(Conflict):
    """It is no directory, or a part of the path is none."""

    code = "not_directory"


class FileBusy(Conflict):
    """The file or directory is in use. Try again."""

    code = "file_busy"
    retry_after = 1


class OtherFileSystem(Conflict):
    """It lies on another file system, where it can be copied but not moved."""

    code = "other_file_system"


class NoGuestAgent(Conflict):
    """The container has no guest agent that answers, which files need (docs/files.md)."""

    code = "no_guest_agent"


class FileChanged(PreconditionFailed):
    """The file is not the one that the request's If-Match or If-None-Match names. Read it again."""


class NoSpace(Full):
    """No space is left on the container's disk; what was there before is unchanged."""


class FilesLost(Failed):
    """The guest agent ended before the operation did. Repeat it, or read the file, to learn of it."""

    code = "files_lost"


class FilesFailed(Failed):
    """The operation failed in the container."""

    code = "files_failed"


class FilesStalled(TimedOut):
    """The container did not answer in time."""

    code = "files_stalled"


class BadArchive(Invalid):
    """The archive cannot be unpacked."""

    code = "bad_archive"

    def __init__(self, detail: str) -> None:
        super().__init__(FieldError("", detail, self.code))


class BadPath(Invalid):
    """The path is not valid."""

    code = "invalid"

    def __init__(self, detail: str) -> None:
        super().__init__(FieldError("", f"path: {detail}", "invalid"))
