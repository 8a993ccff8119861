"""The in-process client: each failure of a sink has its own error."""

from __future__ import annotations

import pytest

from syncing import errors
from syncing.sinks import CLAIM_DEADLINE_S
from syncing.sinks.flags import check_flag


def test_put_get_list_and_delete(s3):
    sink = s3.sink()
    sink.put("p/x", b"content")

    assert sink.get("p/x", CLAIM_DEADLINE_S) == b"content"
    assert sink.get("p/none", CLAIM_DEADLINE_S) is None
    assert sink.has_objects("p", CLAIM_DEADLINE_S) is True
    assert sink.has_objects("q", CLAIM_DEADLINE_S) is False
    assert dict(sink.names("p")) == {"x": 7}
    sink.delete("p/x")
    assert sink.get("p/x", CLAIM_DEADLINE_S) is None


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"bucket": "no-such-bucket"}, errors.SinkMissing),
        ({"access_key_id": "WRONG"}, errors.SinkDenied),
        ({"secret_access_key": "wrong"}, errors.SinkDenied),
        ({"endpoint": "http://127.0.0.1:1"}, errors.SinkUnreachable),
    ],
)
def test_each_failure_of_a_sink_has_its_own_error(s3, over, error):
    with pytest.raises(error):
        s3.sink(**over).probe()


def test_a_sinks_secret_is_not_in_its_repr(s3):
    assert s3.secret_key not in repr(s3.sink())


@pytest.mark.parametrize(
    "flag",
    ["--s3-upload-cutoff=100M", "--transfers=8", "--s3-storage-class=STANDARD_IA", "--s3-force-path-style=false"],
)
def test_flags_that_only_tune_are_allowed(flag):
    assert check_flag(flag) is None


@pytest.mark.parametrize(
    "flag",
    ["--config=/etc/x", "-L", "--password-command=id", "--s3-endpoint=http://x", "--transfers", "--transfers=65",
     "--transfers=8 --links", "--log-file=/etc/passwd", "--TRANSFERS=8", "--backup-dir=x", "--delete-excluded=true",
     "--s3-storage-class=GLACIER", "--s3-storage-class=DEEP_ARCHIVE"],
)  # fmt: skip
def test_flags_that_run_write_or_leak_are_refused(flag):
    assert check_flag(flag)
