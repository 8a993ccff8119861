from __future__ import annotations

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from boilerhouse.core import deployment
from boilerhouse.core.deployment import DeploymentMismatch, WrongNode
from boilerhouse.core.models import Deployment
from boilerhouse.process.commands import exit_code
from tests.make import make_container


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


def test_a_worker_of_another_node_refuses_to_start_and_says_what_to_do(data_dir):
    """The hint was to write the id into the file, which lost every tenant's state."""
    make_container(node="machine-1-abcdef")
    with pytest.raises(WrongNode) as refused:
        deployment.check_node()
    said = refused.value.detail
    assert "machine-1-abcdef" in said
    assert str(data_dir) in said
    assert "manage.py restore" in said
    assert exit_code(refused.value) == 1
    for command in ("run_worker", "run_controller"):
        with pytest.raises(CommandError) as ended:
            call_command(command)
        assert ended.value.returncode == 1
        assert "Mount" in str(ended.value)


def test_a_node_that_holds_one_of_the_containers_starts_and_so_does_a_new_deployment(data_dir):
    """Only if no row names this node."""
    deployment.check_node()
    make_container(node="machine-1-abcdef")
    make_container()
    deployment.check_node()


def test_the_words_about_a_missing_id_advise_nothing_dangerous(data_dir):
    """An id written by hand makes an empty directory look like the deployment's own."""
    (data_dir / "deployment-id").unlink()
    deployment._checked.cache_clear()
    with pytest.raises(DeploymentMismatch) as refused:
        deployment.deployment_id()
    assert "write" not in refused.value.detail
    assert "restore" in refused.value.detail
