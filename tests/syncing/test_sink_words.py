"""Errors of saves in an operator's words: every code that a sink or rclone answers, and every code of ours."""

from __future__ import annotations

import re

import pytest

from syncing import errors, sinks
from syncing.sink_words import CODES, OWN, STATUSES, Remedy, explain
from syncing.sinks import refusals

pytestmark = pytest.mark.any_database
AT = "bucket state at http://s3.example:9000"


def _of_s3(code: str, status: int) -> tuple[str, str]:
    """Our code and detail for this answer, as the S3 sink makes them."""
    error = refusals.of_s3(
        AT, {"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    )
    return error.code, error.detail


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("SignatureDoesNotMatch", 403, "The secret key is wrong (403 SignatureDoesNotMatch)."),
        ("InvalidAccessKeyId", 403, "The sink does not know the access key (403 InvalidAccessKeyId)."),
        ("AccessDenied", 403, "The keys may not read, write or delete there (403 AccessDenied)."),
        ("ExpiredToken", 400, "The temporary keys have expired (400 ExpiredToken)."),
        ("SlowDown", 503, "The sink limits the number of requests (503 SlowDown)."),
        ("QuotaExceeded", 403, "The sink is full (403 QuotaExceeded)."),
        ("InternalError", 500, "The sink fails (500 InternalError)."),
        ("InvalidObjectState", 403, "The state is in an archive and must be brought back first"),
        ("PermanentRedirect", 301, "The bucket is in another region (301 PermanentRedirect)."),
        ("RequestTimeTooSkewed", 403, "The clock of this machine or of the sink is wrong (403 RequestTimeTooSkewed)."),
        ("NotImplemented", 501, "The sink does not support this request (501 NotImplemented)."),
        ("Unheard.Of", 403, "The keys may not read, write or delete there (403 Unheard.Of)."),
        ("Unheard.Of", 500, "The sink fails (500 Unheard.Of)."),
        ("Unheard.Of", 418, "The save failed (418 Unheard.Of)."),
    ],
)
def test_what_s3_answers(code, status, text):
    assert explain(*_of_s3(code, status), "s3").text.startswith(text)


def test_a_bucket_that_does_not_exist_is_missing_by_our_own_code():
    assert (
        explain(*_of_s3("NoSuchBucket", 404), "s3").text == "The bucket, container or folder does not exist (missing)."
    )


@pytest.mark.parametrize(
    ("kind", "code", "detail", "text"),
    [
        (
            "azureblob", "denied",
            "The container c at https://a.blob.core.windows.net answered 403 AuthenticationFailed to PUT: Server failed.",
            "The account key is wrong (403 AuthenticationFailed).",
        ),
        (
            "azureblob", "clock_skew",
            "The container c at https://a answered 403 AuthenticationFailed to PUT: Request date header too old."
            " Set this machine's clock.",
            "The clock of this machine or of the sink is wrong (403 AuthenticationFailed).",
        ),
        (
            "azureblob", "throttled", "The container c at https://a answered 503 ServerBusy to GET: Busy.",
            "The sink limits the number of requests (503 ServerBusy).",
        ),
        (
            "gcs", "denied", "The bucket b at https://storage.googleapis.com answered 403 to POST: x may not do this.",
            "The service account may not read, write or delete there (403).",
        ),
        (
            "gcs", "denied",
            "https://oauth2.googleapis.com/token answered 400 to the service account x@y: invalid_grant: Account"
            " not found.",
            "The key of the service account is deleted, disabled or wrong (400 invalid_grant).",
        ),
        ("webdav", "denied", "https://dav.example answered 401 to PUT.", "The user name or password is wrong (401)."),
        ("webdav", "denied", "https://dav.example answered 403 to PUT.", "The user may not read or write there (403)."),
        ("webdav", "missing", "https://dav.example answered 409 to MKCOL.", "The folder does not exist (409)."),
        ("webdav", "disk_full", "https://dav.example answered 507 to PUT.", "The sink is full (507)."),
        ("webdav", "failed", "https://dav.example answered 423 to PUT.", "A file at the sink is locked (423)."),
        ("webdav", "throttled", "https://dav.example answered 429 to PUT.", "The sink limits the number of requests (429)."),
        (
            "sftp", "denied", "h:22 refuses the user bh and what the spec gives.",
            "The user, password or key is wrong (denied).",
        ),
        ("sftp", "denied", "h:22/backup answered: Permission denied.", "The user may not read or write there (denied)."),
        ("sftp", "untrusted", "Host key mismatch.", "The sink's certificate or host key is not trusted (untrusted)."),
        (
            "local", "denied", "The sink's directory cannot be used (/mnt/state: Read-only file system).",
            "The directory cannot be read or written (Read-only file system).",
        ),
        (
            "local", "unreachable", "The sink's directory does not answer (/mnt/state: Stale file handle).",
            "The sink does not answer (Stale file handle).",
        ),
        ("s3", "unreachable", f"The {AT} cannot be reached (EndpointConnectionError).", "The sink does not answer (unreachable)."),
        ("", "unsaveable", "x is a socket.", "A file cannot be saved exactly (unsaveable)."),
        ("", "a_code_of_tomorrow", "", "The save failed (a_code_of_tomorrow)."),
        ("", "", "", "The save failed (failed)."),
    ],
)  # fmt: skip
def test_what_the_other_sinks_answer(kind, code, detail, text):
    assert explain(code, detail, kind).text == text


@pytest.mark.parametrize(
    ("sink", "line", "text"),
    [
        (
            sinks.S3Sink("b", "r", ""),
            "Failed to copy: operation error S3: PutObject, https response error StatusCode: 403, RequestID: 1, HostID: ,"
            " api error SignatureDoesNotMatch: The request signature does not match.",
            "The secret key is wrong (403 SignatureDoesNotMatch).",
        ),
        (
            sinks.S3Sink("b", "r", ""),
            "operation error S3: PutObject, https response error StatusCode: 503, api error SlowDown: Reduce your rate.",
            "The sink limits the number of requests (503 SlowDown).",
        ),
        (
            sinks.AzureBlobSink("a", "c", ""),
            "RESPONSE 403: 403 Server failed to authenticate the request. ERROR CODE: AuthenticationFailed",
            "The account key is wrong (403 AuthenticationFailed).",
        ),
        (
            sinks.GcsSink("b", ""), "googleapi: Error 403: x does not have storage.objects.create access., forbidden",
            "The service account may not read, write or delete there (403).",
        ),
        (
            sinks.GcsSink("b", ""), 'cannot fetch token: 400 Response: {"error":"invalid_grant"}',
            "The key of the service account is deleted, disabled or wrong (400 invalid_grant).",
        ),
        (
            sinks.SftpSink("h", 22, "u", "/b", ()), "couldn't connect SSH: ssh: unable to authenticate",
            "The user, password or key is wrong (denied).",
        ),
    ],
)  # fmt: skip
def test_what_rclone_says(sink, line, text):
    error = sink.rclone_failure([line])
    assert error is not None
    assert explain(error.code, error.detail, sink.type).text == text


def test_every_code_of_ours_has_words():
    def below(kind):
        return {kind.code} | {code for sub in kind.__subclasses__() for code in below(sub)}

    assert below(errors.SyncFailed) <= set(OWN)


def test_every_code_that_the_sinks_classify_has_words():
    assert set(CODES) >= refusals._THROTTLED | refusals._ELSEWHERE | refusals._FULL


def test_words_are_sentences_of_an_operator():
    everything = [*CODES.values(), *OWN.values(), *(words for known in STATUSES.values() for words in known.values())]
    for words, remedy in everything:
        assert re.fullmatch(r"[A-Z][^.]*[^.\s]", words), words
        assert remedy in Remedy


def test_a_tenants_file_name_is_not_taken_for_an_answer():
    assert explain("unsaveable", "SignatureDoesNotMatch is a socket.").technical == "unsaveable"
