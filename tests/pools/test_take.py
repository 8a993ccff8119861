"""take() gives each container to one caller, whatever the number of threads and processes (P1)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction

from pools.models import Container
from pools.states import ContainerHealth, ContainerState
from tests.make import make_container, make_pool

pytestmark = pytest.mark.slow

PROCESSES, THREADS, CONTAINERS = 4, 8, 500

WORKER = textwrap.dedent(
    """
    import json, sys, threading, django
    django.setup()
    from django.db import connection, transaction
    from pools.models import Container, Pool
    pool, taken = Pool.objects.get(pk=sys.argv[1]), []
    def work():
        while True:
            with transaction.atomic():
                container = Container.objects.take(pool)
            if container is None:
                break
            taken.append(str(container.pk))
        connection.close()
    threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
    [t.start() for t in threads]; [t.join() for t in threads]
    print(json.dumps(taken))
    """
)


def test_thirty_two_threads_in_four_processes_take_each_container_once(transactional_db):
    pool = make_pool(max_size=1000)
    first = make_container(pool)
    rows = [
        Container(pool=pool, version=first.version, node_id=first.node_id, uid=300_000 + n, state=ContainerState.IDLE)
        for n in range(CONTAINERS - 1)
    ]
    Container.objects.bulk_create(rows)
    database = connection.settings_dict
    url = (
        f"sqlite:///{database['NAME']}"
        if connection.vendor == "sqlite"
        else f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )
    environment = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, pool.pk, str(THREADS)],
            env=environment, cwd=Path(settings.BASE_DIR), stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    taken = [pk for worker in workers for pk in json.loads(worker.communicate(timeout=120)[0])]

    assert len(taken) == CONTAINERS
    assert len(set(taken)) == CONTAINERS
    assert Container.objects.filter(state=ContainerState.CLAIMED).count() == CONTAINERS


def test_the_longest_idle_one_is_taken_first_and_unhealthy_ones_never(db):
    pool = make_pool()
    old, new = make_container(pool), make_container(pool)
    sick = make_container(pool, health=ContainerHealth.UNHEALTHY)
    Container.objects.filter(pk=new.pk).update(state_changed_at="2030-01-01T00:00:00Z")
    Container.objects.filter(pk=sick.pk).update(state_changed_at="2000-01-01T00:00:00Z")

    with transaction.atomic():
        taken = [Container.objects.take(pool) for _ in range(3)]

    assert [c and c.pk for c in taken] == [old.pk, new.pk, None]


def test_containers_of_another_pool_are_not_taken(db):
    make_container()

    with transaction.atomic():
        assert Container.objects.take(make_pool()) is None
