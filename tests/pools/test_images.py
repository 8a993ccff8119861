"""Images built from a checkout, by a real engine."""

from __future__ import annotations

import shutil
import uuid

import pytest

import docker
from pools import images

pytestmark = pytest.mark.any_database


def test_the_example_serves_other_users_whatever_the_umask_of_its_checkout(tmp_path):
    """A checkout under umask 077 is readable by root only, but containers run as other users."""
    context = shutil.copytree(images.EXAMPLE_CONTEXT, tmp_path / "context")
    for path in [context, *context.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o700)
    busybox = shutil.copyfile(images.BUSYBOX, tmp_path / "busybox")
    busybox.chmod(0o700)
    tag = f"boilerhouse-test/{uuid.uuid4().hex[:8]}:1"
    for _ in images.build(context, tag, {"busybox": busybox}):
        pass
    engine = docker.from_env()
    try:
        said = engine.containers.run(
            tag, ["cat", "/srv/start", "/srv/www/cgi-bin/notes"], user="65534:65534", network_mode="none", remove=True
        )
        assert b"httpd" in said
    finally:
        engine.images.remove(tag, force=True)
