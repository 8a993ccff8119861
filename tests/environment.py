"""Loaded before Django's settings: every test run is its own deployment in a temporary directory."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.certificates import Authority

_directory = tempfile.mkdtemp(prefix="bh-test-")
os.environ["BOILERHOUSE_DATA_DIR"] = _directory
os.environ["BOILERHOUSE_FAILPOINTS"] = os.path.join(_directory, "failpoints")
os.mkdir(os.environ["BOILERHOUSE_FAILPOINTS"])
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the processes of tests compile a module once, not each of them
sys.dont_write_bytecode = False
for _name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.lower(), None)
AUTHORITY = Authority(Path(_directory) / "ca")
os.environ["BOILERHOUSE_CA_BUNDLE"] = str(AUTHORITY.bundle)
os.environ["BOILERHOUSE_LOCAL_SINK_ROOT"] = os.path.join(_directory, "sinks")
os.mkdir(os.environ["BOILERHOUSE_LOCAL_SINK_ROOT"], mode=0o700)
os.environ["BOILERHOUSE_ALLOWED_SINK_HOSTS"] = "127.0.0.0/8"  # where the sinks of all tests are
os.environ["BOILERHOUSE_ALLOWED_NOTIFICATION_HOSTS"] = "127.0.0.0/8"  # where the receivers of all tests are
os.environ["BOILERHOUSE_NOTIFICATION_HOLD_S"] = "1"
os.environ["BOILERHOUSE_ORPHAN_GRACE_S"] = "3"
os.environ["BOILERHOUSE_RECONCILE_EVERY_S"] = "5"
os.environ["BOILERHOUSE_STREAM_STALL_S"] = "2"
os.environ["BOILERHOUSE_THROTTLE_RATE"] = os.environ["BOILERHOUSE_CLAIM_RATE_PER_TENANT"] = "0"
os.environ["BOILERHOUSE_DRAIN_S"] = "3"
os.environ.setdefault("BOILERHOUSE_LOG_FORMAT", "json")
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # Playwright keeps an event loop in the tests' thread
os.environ["PATH"] += ":/usr/sbin:/sbin"
_pid = os.getpid()


def _clean() -> None:
    if os.getpid() == _pid:
        shutil.rmtree(_directory, ignore_errors=True)


atexit.register(_clean)
