"""Bodies of sync specs as the API accepts them."""

from __future__ import annotations

from typing import Any

SECRET = "very-secret-key-of-nobody"


def spec_body(**over: Any) -> dict[str, Any]:
    """Of a spec and a pool ``notes``, with an S3 sink where nothing answers; without what of the sink is None."""
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    sink = {"type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/"}
    sink |= {"endpoint": "http://127.0.0.1:1", "accessKeyId": "AKID", "secretAccessKey": SECRET, **over.pop("sink", {})}
    sink = {key: value for key, value in sink.items() if value is not None}
    policy = {"onClaim": True, "onRelease": True}
    return {"id": "notes", "poolId": "notes", "mappings": [mapping], "sink": sink, "policy": policy, **over}
