"""Fixtures of the tests of claims and releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from pools.models import Pool
from tests.fake_runtime import FakeRuntime
from tests.make import make_pool, make_sync_spec
from tests.s3 import S3Server


@pytest.fixture
def saving_pool(data_dir: Path, transactional_db: None, s3: S3Server, fake_engine: FakeRuntime) -> Pool:
    """A pool of a fake engine whose tenants' state is saved to S3."""
    pool = make_pool()
    body = s3.json("t/${tenantId}/")
    secret = body.pop("secretAccessKey")
    make_sync_spec(pool, sink=body, sink_secrets={"accessKeyId": s3.access_key, "secretAccessKey": secret})
    return pool
