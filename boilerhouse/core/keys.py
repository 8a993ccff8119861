"""Keys of this deployment, created once and stored in the data directory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def new_token() -> str:
    return secrets.token_urlsafe(48)


def new_fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def stored(data_dir: Path, name: str, make: Callable[[], str] = new_token) -> str:
    """Return the key in ``<data_dir>/keys/<name>`` (0600); create it if missing."""
    return once(data_dir / "keys" / name, make)


def once(path: Path, make: Callable[[], str]) -> str:
    """Return the content of the file; create it (0600) if missing.

    Two processes that start at the same time agree: a hard link creates the complete file atomically.
    """
    if not path.exists():
        draft = _draft(path, make())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; use its key
        finally:
            draft.unlink()
    return path.read_text().strip()


def replace(path: Path, text: str) -> None:
    """Replace the file's content with ``text`` (0600), durably. Readers see either the old or the new content."""
    _draft(path, text).rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _draft(path: Path, text: str) -> Path:
    """A file beside ``path`` with the content ``text``, synced to disk."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return draft
