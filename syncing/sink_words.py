"""Errors of saves in an operator's words: the cause, the technical code, and what has to change.

A sink answers in its own language ("403 SignatureDoesNotMatch"). Here each code that the sinks and rclone are known to
answer has a sentence; the code stays beside it, because it is what people search for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from syncing import errors


class Remedy(StrEnum):
    """What has to change before a save works."""

    CREDENTIAL = "credential"
    """The keys, password or user that the spec gives."""
    RIGHTS = "rights"
    """What the keys may do, which is set at the sink."""
    SPEC = "spec"
    """The settings of the sync spec: endpoint, bucket, region, paths."""
    SPACE = "space"
    """Free space, at the sink or on the node."""
    SINK = "sink"
    """The sink itself. It may recover without anybody."""
    CLOCK = "clock"
    """The clock of this machine."""
    DEPLOYMENT = "deployment"
    """A setting of the deployment."""
    NODE = "node"
    """The directory on the node."""
    FILES = "files"
    """The tenant's files."""
    RETRY = "retry"
    """Nothing known: the next attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cause of a failed save or probe."""

    words: str
    """The cause, without a full stop."""
    technical: str
    """The sink's own code, or ours."""
    remedy: Remedy

    @property
    def is_unknown(self) -> bool:
        """Whether no more is known than that it failed."""
        return self.words == OWN[errors.SyncFailed.code][0]

    @property
    def text(self) -> str:
        return f"{self.words} ({self.technical})."


Words = tuple[str, Remedy]
CREDENTIAL, RIGHTS, SPEC, SPACE, SINK = Remedy.CREDENTIAL, Remedy.RIGHTS, Remedy.SPEC, Remedy.SPACE, Remedy.SINK
CLOCK, DEPLOYMENT, NODE, FILES, RETRY = Remedy.CLOCK, Remedy.DEPLOYMENT, Remedy.NODE, Remedy.FILES, Remedy.RETRY

_WRONG_SECRET = "The secret key is wrong", CREDENTIAL
_EXPIRED = "The temporary keys have expired", CREDENTIAL
_NO_RIGHTS = "The keys may not read, write or delete there", RIGHTS
_NO_ACCOUNT = "The account at the sink is disabled", SINK
_NO_BUCKET = "The bucket does not exist", SPEC
_NO_CONTAINER = "The container does not exist", SPEC
_OTHER_REGION = "The bucket is in another region", SPEC
_BUSY = "The sink limits the number of requests", SINK
_FAILS = "The sink fails", SINK
_FULL = "The sink is full", SPACE
_ARCHIVED = "The state is in an archive and must be brought back first", SINK
_WRONG_CLOCK = "The clock of this machine or of the sink is wrong", CLOCK
_UNSUPPORTED = "The sink does not support this request", SPEC
_ENCRYPTION_KEY = "The sink's encryption key cannot be used", RIGHTS

CODES: dict[str, Words] = {
    # S3 and what speaks it
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "InvalidAccessKeyId": ("The sink does not know the access key", CREDENTIAL),
    "InvalidToken": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidIdentityToken": ("The node's identity is refused", CREDENTIAL),
    "AccessDenied": _NO_RIGHTS,
    "AccessDeniedException": _NO_RIGHTS,
    "AccessForbidden": _NO_RIGHTS,
    "UnauthorizedAccess": _NO_RIGHTS,
    "AllAccessDisabled": ("All access to the bucket is disabled", SINK),
    "AccountProblem": _NO_ACCOUNT,
    "NotSignedUp": _NO_ACCOUNT,
    "InvalidPayer": _NO_ACCOUNT,
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": ("The name of the bucket is invalid", SPEC),
    "PermanentRedirect": _OTHER_REGION,
    "TemporaryRedirect": _OTHER_REGION,
    "Redirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "RequestTimeTooSkewed": _WRONG_CLOCK,
    "SlowDown": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "ThrottledException": _BUSY,
    "RequestThrottled": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "TooManyRequests": _BUSY,
    "TooManyRequestsException": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _FAILS,
    "RequestTimeout": ("The sink received the request too slowly", SINK),
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "EntityTooLarge": ("A file is larger than the sink accepts", FILES),
    "InvalidObjectState": _ARCHIVED,
    "MethodNotAllowed": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
    "InvalidRequest": ("The sink rejects the request", SPEC),
    "InvalidArgument": ("The sink rejects the request", SPEC),
    "KMS.DisabledException": _ENCRYPTION_KEY,
    "KMS.NotFoundException": _ENCRYPTION_KEY,
    "KMS.KMSInvalidStateException": _ENCRYPTION_KEY,
    # Azure Blob Storage
    "AuthenticationFailed": ("The account key is wrong", CREDENTIAL),
    "InvalidAuthenticationInfo": ("The account key is wrong", CREDENTIAL),
    "KeyBasedAuthenticationNotPermitted": ("The storage account does not accept account keys", RIGHTS),
    "AuthorizationFailure": _NO_RIGHTS,
    "AuthorizationPermissionMismatch": _NO_RIGHTS,
    "InsufficientAccountPermissions": _NO_RIGHTS,
    "AccountIsDisabled": _NO_ACCOUNT,
    "ContainerNotFound": _NO_CONTAINER,
    "ContainerBeingDeleted": ("The container is being deleted", SPEC),
    "ContainerDisabled": ("The container is disabled", SINK),
    "BlobArchived": _ARCHIVED,
    "ServerBusy": _BUSY,
    "OperationTimedOut": _FAILS,
    "KeyVaultEncryptionKeyNotFound": _ENCRYPTION_KEY,
    # Google Cloud Storage
    "invalid_grant": ("The key of the service account is deleted, disabled or wrong", CREDENTIAL),
    "invalid_client": ("The service account does not exist", CREDENTIAL),
    "unauthorized_client": ("The service account may not sign in", RIGHTS),
    "accountDisabled": _NO_ACCOUNT,
    "rateLimitExceeded": _BUSY,
}
"""By the code that a sink answers, exactly as it spells it."""

STATUSES: dict[str, dict[int, Words]] = {
    "webdav": {
        401: ("The user name or password is wrong", CREDENTIAL),
        403: ("The user may not read or write there", RIGHTS),
        404: ("The folder does not exist", SPEC),
        405: _UNSUPPORTED,
        409: ("The folder does not exist", SPEC),
        423: ("A file at the sink is locked", SINK),
        507: _FULL,
    },
    "gcs": {
        401: ("The service account is refused", CREDENTIAL),
        403: ("The service account may not read, write or delete there", RIGHTS),
        404: _NO_BUCKET,
    },
    "azureblob": {404: _NO_CONTAINER},
    "": {
        401: ("The sink refuses the keys", CREDENTIAL),
        403: _NO_RIGHTS,
        407: ("The proxy before the sink demands other credentials", DEPLOYMENT),
        408: _FAILS,
        429: _BUSY,
        501: _UNSUPPORTED,
        503: _BUSY,
        507: _FULL,
    },
}
"""By the kind of sink and the status, for answers without a known code; the empty kind is any."""

OWN: dict[str, Words] = {
    errors.SyncFailed.code: ("The save failed", RETRY),
    errors.SinkUnreachable.code: ("The sink does not answer", SINK),
    errors.SinkThrottled.code: _BUSY,
    errors.SinkArchived.code: _ARCHIVED,
    errors.ClockSkewed.code: _WRONG_CLOCK,
    errors.SinkElsewhere.code: _OTHER_REGION,
    errors.SinkDenied.code: ("The sink refuses the keys", CREDENTIAL),
    errors.SinkClosed.code: ("This deployment does not allow a sink at that address", DEPLOYMENT),
    errors.SinkRedirects.code: ("The sink redirects to another address", SPEC),
    errors.SinkUntrusted.code: ("The sink's certificate or host key is not trusted", SPEC),
    errors.SinkMissing.code: ("The bucket, container or folder does not exist", SPEC),
    errors.SinkUnreliable.code: ("The sink does not return what was written", SINK),
    errors.DiskFull.code: ("The disk is full", SPACE),
    errors.Oversized.code: ("An object at the sink is too large", SINK),
    errors.TransferStalled.code: ("The transfer made no progress", SINK),
    errors.TransferCancelled.code: ("The transfer was cancelled", RETRY),
    errors.TransferInterrupted.code: ("The transfer was interrupted", RETRY),
    errors.BadFilter.code: ("A pattern of the spec is invalid", SPEC),
    errors.TooLarge.code: ("The state has more files or bytes than a save may have", FILES),
    errors.Unsaveable.code: ("A file cannot be saved exactly", FILES),
    errors.FileChanging.code: ("A large file changes while it is saved", FILES),
    errors.Incomplete.code: ("The saved files differ from the originals", RETRY),
    errors.RemoteChanged.code: ("A newer claim has saved to this location", SPEC),
    errors.VolumeInside.code: ("Another volume is mounted inside the mapped directory", SPEC),
    errors.DirectoryMissing.code: ("The directory of the state is not on its node", NODE),
    errors.PathPlanted.code: ("The mapped path is a link and not a directory", FILES),
    errors.StateMissing.code: ("The saved state is not where it was saved", SINK),
    errors.StateMoved.code: ("The state was saved at another location", SPEC),
    errors.LocationConflict.code: ("Another sync spec saves to the same location", SPEC),
    errors.PlaceChanged.code: ("The sink is no longer the place where state was saved", SPEC),
}
"""By our own code (``SyncFailed.code``)."""

OF_SINKS = frozenset({
    errors.SinkUnreachable.code, errors.SinkThrottled.code, errors.SinkArchived.code, errors.ClockSkewed.code,
    errors.SinkElsewhere.code, errors.SinkDenied.code, errors.SinkClosed.code, errors.SinkRedirects.code,
    errors.SinkUntrusted.code, errors.SinkMissing.code, errors.SinkUnreliable.code, errors.DiskFull.code,
    errors.TransferStalled.code,
})  # fmt: skip
"""Codes of errors that every tenant at the same sink meets."""

SURE = frozenset({errors.ClockSkewed.code, errors.SinkElsewhere.code, errors.SinkArchived.code})
"""Codes that say more than the sink's own: a wrong clock, for example, is answered like a wrong key."""

_CODE = re.compile(r"(?:answered \d{3} |api error |error code: )([A-Za-z][\w.]{3,60})", re.IGNORECASE)
_STATUS = re.compile(
    r"(?:answered |statuscode: |status code: |response |googleapi: error |cannot fetch token: )(\d{3})\b", re.IGNORECASE
)
_REASON = re.compile(r"\b(invalid_grant|invalid_client|unauthorized_client|accountDisabled|rateLimitExceeded)\b")
"""Google's codes stand in the middle of a sentence."""
_ERRNO = re.compile(r": ([A-Z][a-z-]+(?: [a-z-]+){1,5})\)")
"""How the system names an error of a directory: ``Permission denied``."""
_SFTP_LOGIN = re.compile(r"refuses the user|unable to authenticate", re.IGNORECASE)
_BY_NAME = {code.lower(): code for code in CODES}


def explain(code: str, detail: str, kind: str = "") -> Explanation:
    """The cause of an error with our code and its detail, at a sink of this kind (``s3``, ``webdav``, …)."""
    status, name = _status_of(detail), _name_of(detail)
    technical = " ".join(filter(None, (str(status or ""), name))) or _errno_of(detail) or code or errors.SyncFailed.code
    words, remedy = _words(code, detail, kind, status, name)
    return Explanation(words, technical, remedy)


def _words(code: str, detail: str, kind: str, status: int, name: str) -> Words:
    if code not in SURE:
        if words := CODES.get(name) or STATUSES.get(kind, {}).get(status) or STATUSES[""].get(status):
            return words
        if status >= 500:
            return _FAILS
    if code == errors.SinkDenied.code and kind == "local":
        return "The directory cannot be read or written", RIGHTS
    if code == errors.SinkDenied.code and kind == "sftp":
        if _SFTP_LOGIN.search(detail):
            return "The user, password or key is wrong", CREDENTIAL
        return "The user may not read or write there", RIGHTS
    return OWN.get(code, OWN[errors.SyncFailed.code])


def _name_of(detail: str) -> str:
    """The sink's code in its spelling; empty if the detail has none."""
    if match := _CODE.search(detail):
        return _BY_NAME.get(match[1].rstrip(".").lower(), match[1].rstrip("."))
    match = _REASON.search(detail)
    return match[1] if match else ""


def _status_of(detail: str) -> int:
    match = _STATUS.search(detail)
    return int(match[1]) if match else 0


def _errno_of(detail: str) -> str:
    match = _ERRNO.search(detail)
    return match[1] if match else ""
