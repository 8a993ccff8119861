"""After a test that commits, the database is as ``migrate`` left it."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.test import TransactionTestCase

from tests.make import make_assignment, make_pool, make_sync_spec

pytestmark = pytest.mark.django_db(transaction=True)
MIGRATED = (ContentType, Permission, Group, Group.permissions.through)


def rows() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_models(include_auto_created=True)}


def end_a_test() -> None:
    TransactionTestCase()._fixture_teardown()


def test_rows_that_refer_to_each_other_are_gone_and_roles_stay():
    before = rows()
    assert {label for label, count in before.items() if count} == {one._meta.label for one in MIGRATED}
    pool = make_pool()
    make_sync_spec(pool)
    make_assignment("alice", pool=pool)
    User.objects.create_user("ann").groups.add(*Group.objects.all())
    assert rows() != before

    end_a_test()
    assert rows() == before


@pytest.mark.parametrize("model", [Group, Permission, Group.permissions.through])
def test_what_a_test_takes_from_the_roles_is_there_again(model):
    before = rows()
    model.objects.all().delete()

    end_a_test()
    assert rows() == before


def test_what_a_test_adds_to_the_roles_is_gone():
    before = rows()
    Group.objects.create(name="another").permissions.add(Permission.objects.earliest("id"))

    end_a_test()
    assert rows() == before
