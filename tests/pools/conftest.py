"""Fixtures of the tests of pools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import registry as registries


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Registry]:
    """A registry that everybody may pull from and push to."""
    with registries.running(tmp_path_factory.mktemp("registry")) as found:
        yield found
