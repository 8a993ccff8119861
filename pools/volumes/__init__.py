"""Containers' directories on this node; the only package that touches what a tenant can write.

``<data>/containers/<id>/{claimed, lock, .saved/, .snapshot/, staging/, <volume>/}`` and ``<ram>/<id>/secrets/``; with a
disk limit, staging and volumes are on a separate file system, ``disk/``. All access to a volume goes through directory
handles that refuse links (``handles``), because a tenant may create anything there.
"""

from __future__ import annotations

from pools.volumes.attributes import (
    apply_manifest,
    apply_modes_on_way,
    apply_mtimes,
    dig_holes,
    modes_on_way,
    restore_names,
)
from pools.volumes.claim_files import provision
from pools.volumes.directories import check, make_dirs, on_disk, prepare
from pools.volumes.entries import Entry, Stamp
from pools.volumes.handles import KEPT_BITS, PLAIN_DIR, PLAIN_FILE, descend
from pools.volumes.inventory import ANY_SIZE, MAX_PATH_BYTES, Census, census
from pools.volumes.latches import is_anothers, latch, read_latch, tenant_of
from pools.volumes.locks import locked
from pools.volumes.paths import (
    containers_dir,
    home,
    placeholder_dir,
    secrets_dir,
    snapshot_dir,
    staging_dir,
    trash_dir,
    volume_path,
)
from pools.volumes.removal import destroy, discard, empty_trash, erase_discarded, wipe
from pools.volumes.snapshots import clear_snapshots, sweep_snapshots
from pools.volumes.staging import move_in, new_staging, seed
from pools.volumes.walks import MAX_WALK_DEPTH, WalkBounds, Walked, walk

__all__ = [
    "ANY_SIZE",
    "KEPT_BITS",
    "MAX_PATH_BYTES",
    "MAX_WALK_DEPTH",
    "PLAIN_DIR",
    "PLAIN_FILE",
    "Census",
    "Entry",
    "Stamp",
    "WalkBounds",
    "Walked",
    "apply_manifest",
    "apply_modes_on_way",
    "apply_mtimes",
    "census",
    "check",
    "clear_snapshots",
    "containers_dir",
    "descend",
    "destroy",
    "dig_holes",
    "discard",
    "empty_trash",
    "erase_discarded",
    "home",
    "is_anothers",
    "latch",
    "locked",
    "make_dirs",
    "modes_on_way",
    "move_in",
    "new_staging",
    "on_disk",
    "placeholder_dir",
    "prepare",
    "provision",
    "read_latch",
    "restore_names",
    "secrets_dir",
    "seed",
    "snapshot_dir",
    "staging_dir",
    "sweep_snapshots",
    "tenant_of",
    "trash_dir",
    "volume_path",
    "walk",
    "wipe",
]
