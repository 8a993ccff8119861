"""A busy database: an image with this machine's sqlite3 and a writer that commits continuously, and its invariants."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITER = """
i=$(sqlite3 /state/app.db 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (tx, n, x);' \\
    'SELECT coalesce(max(tx), 0) FROM t' | tail -1)
while :; do
    i=$((i + 1))
    echo "BEGIN; INSERT INTO t SELECT $i, value, hex(randomblob(100)) FROM generate_series(1, 20);"
    echo "DELETE FROM t WHERE tx <= $i - 300; COMMIT;"
    [ $((i % 40)) = 0 ] && echo 'PRAGMA wal_checkpoint(TRUNCATE);'
done | sqlite3 /state/app.db > /dev/null
"""
"""Commits of 20 rows as fast as it can; 300 transactions are kept, so that pages are written over and over."""


@contextmanager
def built_image(context: Path) -> Iterator[str]:
    """The example workload's image with sqlite3 and ``/writer.sh``, by a name that no other test uses."""
    image = f"boilerhouse/test-sqlite:{uuid.uuid4().hex[:8]}"
    root = context / "root"
    listed = subprocess.run(["ldd", "/usr/bin/sqlite3"], capture_output=True, text=True, check=True).stdout
    for path, inside in [("/usr/bin/sqlite3", "/bin/sqlite3"), *((one, one) for one in re.findall(r"(/\S+)", listed))]:
        target = root / inside.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(path).read_bytes())
    (root / "writer.sh").write_text(WRITER)
    for path in root.rglob("*"):
        path.chmod(0o755)
    (context / "Dockerfile").write_text("FROM boilerhouse/example-workload:1\nCOPY root/ /\n")
    subprocess.run(["docker", "build", "-q", "-t", image, str(context)], check=True, capture_output=True)
    try:
        yield image
    finally:
        subprocess.run(["docker", "rmi", "-f", image], check=True, capture_output=True)


def content(path: Path) -> str:
    """The content of the database as one line; it is opened as any program would, and must be intact."""
    said = subprocess.run(["sqlite3", path, ".sha3sum"], capture_output=True, text=True, check=True).stdout
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        each = dict(database.execute("SELECT tx, count(*) FROM t GROUP BY tx"))
    assert set(each.values()) == {20}, "whole transactions"
    assert sorted(each) == list(range(min(each), max(each) + 1)), "none is missing"
    return f"{max(each)} {said.strip()}"
