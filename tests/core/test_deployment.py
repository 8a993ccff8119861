from __future__ import annotations

import pytest

from boilerhouse.core import deployment
from boilerhouse.core.deployment import DeploymentMismatch
from boilerhouse.core.models import Deployment


def test_a_database_of_another_deployment_is_not_touched(data_dir):
    (data_dir / "deployment-id").write_text("ffffffffff")
    deployment._checked.cache_clear()

    with pytest.raises(DeploymentMismatch):
        deployment.deployment_id()


def test_a_data_directory_without_its_id_is_not_touched(data_dir):
    (data_dir / "deployment-id").unlink()
    deployment._checked.cache_clear()

    with pytest.raises(DeploymentMismatch):
        deployment.deployment_id()


def test_the_id_is_made_once(data_dir):
    made = deployment.deployment_id()
    deployment._checked.cache_clear()

    assert deployment.deployment_id() == made == Deployment.objects.get().deployment_id
