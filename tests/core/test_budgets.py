"""No tenant or key can use all of a shared resource (P14)."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.test import RequestFactory
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.schema import operation
from boilerhouse.core.models import ApiKey
from boilerhouse.process import budgets
from boilerhouse.process.budgets import Budget, BudgetExceeded, Kind, TooManyStreams
from boilerhouse.telemetry.instruments import BUDGET_REFUSALS
from boilerhouse.web.asgi_handler import ThreadedHandler
from boilerhouse.web.streaming import Stream
from boilerhouse.web.waiting import Waiters, Waiting

MALLORY, BOB = budgets.tenant("mallory"), budgets.tenant("bob")


@pytest.fixture
def budget(settings):
    settings.BOILERHOUSE_MAX_STREAMS = 10
    settings.BOILERHOUSE_MAX_STREAMS_PER_TENANT = 3
    settings.BOILERHOUSE_MAX_STREAMS_PER_KEY = 6
    shares = {kind: f"BOILERHOUSE_MAX_STREAMS_PER_{kind.name}" for kind in (Kind.TENANT, Kind.KEY)}
    return Budget("test", "things", "BOILERHOUSE_MAX_STREAMS", shares, TooManyStreams)


def key_of(role: str, *tenant_ids: str, pk: str = "k") -> ApiKey:
    return ApiKey(pk=pk, name=f"key-{pk}", role=role, tenant_ids=list(tenant_ids))


def test_a_tenant_gets_its_share_whatever_keys_it_has_and_others_theirs(budget):
    """The fourth of one tenant is refused with whose limit it is and which; bob's first is not."""
    with ExitStack() as held:
        for pk in ("a", "b", "c"):
            held.enter_context(budget.enter(*budgets.owners(key_of("tenant", "mallory", pk=pk))))
        with pytest.raises(BudgetExceeded, match="The tenant mallory has 3 things") as refused:
            budget.enter(*budgets.owners(key_of("operator"), MALLORY))
        assert refused.value.retry_after
        held.enter_context(budget.enter(*budgets.owners(key_of("operator"), BOB)))
        assert (budget.used(MALLORY), budget.used(BOB), budget.used()) == (3, 1, 4)
    assert budget.used() == budget.used(MALLORY) == 0
    budget.enter(MALLORY).release()


def test_a_key_that_acts_for_many_leaves_some_to_other_keys(budget):
    with ExitStack() as held:
        for number in range(6):
            held.enter_context(budget.enter(*budgets.owners(key_of("operator"), budgets.tenant(f"t{number}"))))
        with pytest.raises(BudgetExceeded, match="The key key-k has 6 things"):
            budget.enter(*budgets.owners(key_of("operator"), BOB))
        assert budget.used(BOB) == 0, "what is refused is not counted"
        for number in range(4):
            held.enter_context(budget.enter(budgets.tenant(f"u{number}")))
        with pytest.raises(TooManyStreams):
            budget.enter(BOB)


def test_a_share_is_never_all(budget, settings):
    settings.BOILERHOUSE_MAX_STREAMS_PER_TENANT = settings.BOILERHOUSE_MAX_STREAMS_PER_KEY = 10_000
    assert budget.share(Kind.TENANT) == budget.share(Kind.KEY) == 9


def test_counts_are_right_after_many_threads_that_enter_and_leave_twice(budget):
    def once(number: int) -> int:
        try:
            hold = budget.enter(budgets.tenant(f"t{number % 5}"))
        except (BudgetExceeded, TooManyStreams):
            return 0
        assert budget.used() <= 10
        hold.release()
        hold.release()
        return 1

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(once, range(4000))) > 0
    assert budget.used() == 0
    assert not budget._used, "a tenant that uses nothing takes no memory"


def test_requests_that_wait_for_the_same_thing_count_once(settings, monkeypatch):
    """A tenant's joined claims count once in the overall limit, and individually in the tenant's limit."""

    monkeypatch.setattr("boilerhouse.web.waiting.pump.subscribe", lambda _act: None)  # outlives this loop

    def nothing(_keys: set) -> set:
        return set()

    async def wait_thirty() -> tuple[int, int]:
        waiters = Waiters(ThreadPoolExecutor(1))
        waiting = []
        for _ in range(30):
            one = Waiting("claim", nothing, time.time() + 30)
            one.owners = (MALLORY,)
            waiting.append(asyncio.ensure_future(waiters.wait(one)))
        await asyncio.sleep(0.1)
        seen = budgets.waiters.used(), budgets.waiters.used(MALLORY)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiters._runner
        waiters._runner.cancel()
        return seen

    assert asyncio.run(wait_thirty()) == (1, 30)
    assert budgets.waiters.used() == budgets.waiters.used(MALLORY) == 0
    settings.BOILERHOUSE_MAX_WAITERS_PER_TENANT = 20
    with ExitStack() as held:
        for number in range(20):
            held.enter_context(budgets.waiters.add(MALLORY, is_shared=number > 0))
        with pytest.raises(BudgetExceeded):
            budgets.waiters.check(MALLORY)
        assert budgets.waiters.has_room(BOB)


def refusals(resource: str) -> float:
    found = BUDGET_REFUSALS.collect()[0].samples
    return sum(one.value for one in found if one.labels["resource"] == resource and one.name.endswith("_total"))


def test_who_asks_for_room_is_not_counted_as_refused(budget):
    """A release that is never refused was counted as refused when nobody waited for it."""
    before = refusals("test")
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(budget.enter(MALLORY))
        assert not budget.has_room(MALLORY)
        assert budget.has_room(BOB)
        assert refusals("test") == before
        with pytest.raises(BudgetExceeded):
            budget.enter(MALLORY)
        assert refusals("test") == before + 1


def test_bytes_are_counted_by_their_number(budget):
    """A large body counts with its size (P14)."""
    with budget.enter(MALLORY, amount=2), pytest.raises(BudgetExceeded):
        budget.enter(MALLORY, amount=2)
    with budget.enter(MALLORY, amount=3), budget.enter(BOB, amount=3):
        assert (budget.used(), budget.used(BOB)) == (6, 3)
    assert budget.used() == budget.used(MALLORY) == 0


class SlowView(ApiView):
    lane = "slow"

    @operation(operation_id="slowly", summary="Say much", responses={200: None})
    def get(self, request):
        if "fail" in request.path:
            raise ZeroDivisionError
        if "follow" in request.path:
            return Stream(lambda _writer: None, "text/plain")
        if "short" in request.path:
            return Response({"stdout": "x"})
        return Response({"stdout": "x" * 1_000_000})


def test_an_answer_that_is_short_or_a_stream_gives_its_place_back_with_its_thread(call):
    """The next request had a thread but no slot, and was refused; streams have their own budget (P14)."""
    key, view, made = call.key_of("admin"), SlowView.as_view(), RequestFactory(HTTP_HOST="testserver")
    before = budgets.slow.used()
    for path in ("/short", "/follow"):
        view(made.get(path, headers={"Authorization": f"Bearer {key}"}))
        assert budgets.slow.used() == before


def test_a_long_answer_keeps_its_place_until_it_is_sent(call, settings):
    """Sixteen threads kept building answers of megabytes for clients that read none of them (P14)."""
    key, view, made = call.key_of("admin"), SlowView.as_view(), RequestFactory(HTTP_HOST="testserver")
    before = budgets.slow.used()
    with pytest.raises(ZeroDivisionError):
        view(made.get("/fail", headers={"Authorization": f"Bearer {key}"}))
    assert budgets.slow.used() == before
    answer = view(made.get("/say", headers={"Authorization": f"Bearer {key}"})).render()
    assert budgets.slow.used() == before + 1

    class Gone(Exception):
        pass

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            raise Gone

    with pytest.raises(Gone):
        asyncio.run(ThreadedHandler()._send(answer, {"path": "/say"}, send))
    assert budgets.slow.used() == before
