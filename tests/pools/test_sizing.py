"""A pool's next step: size, shrinking, and rolling to a new version (hazards.md#d7). Rows only, no engine."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pools.models import Container, Pool, Template
from pools.sizing import decide
from pools.states import ContainerState

OLD, NEW, OTHER = Template(1, None), Template(2, None), Template(2, {"dns": ["9.9.9.9"]})
STARTING, IDLE, CLAIMED, REMOVING = (
    ContainerState.STARTING, ContainerState.IDLE, ContainerState.CLAIMED, ContainerState.REMOVING,
)  # fmt: skip
_ids = itertools.count(1)
_epoch = datetime(2026, 1, 1, tzinfo=UTC)


def container(state: ContainerState, template: Template = NEW) -> Container:
    number = next(_ids)
    return Container(
        pk=UUID(int=number), state=state, version_id=template.version_id, network=template.network, uid=1,
        state_changed_at=_epoch + timedelta(seconds=number),
    )  # fmt: skip


def pool(good: Template | None = NEW, halted: Template | None = None, **over) -> Pool:
    over = {"min_size": 0, "max_size": 10, "min_idle": 0, "target_size": 0, **over}
    return Pool(
        id="p", good_version_id=good and good.version_id, good_network=good and good.network,
        halted_version_id=halted and halted.version_id, halted_network=halted and halted.network, **over,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("over", "claimed", "desired"),
    [
        ({"min_size": 3}, 0, 3), ({"min_size": 3}, 2, 3), ({"min_size": 3, "min_idle": 2}, 2, 4),
        ({"target_size": 5}, 1, 5), ({"min_idle": 4, "max_size": 5}, 3, 5), ({"waiting": 2}, 1, 3),
    ],
)  # fmt: skip
def test_the_desired_size_is_the_contracts(over, claimed, desired):
    assert pool(**over).desired_size(claimed) == desired


def test_what_is_under_way_counts_and_parallel_bounds_it():
    members = [container(STARTING), container(IDLE)]

    assert decide(pool(min_size=8), NEW, members, 4).start == [NEW] * 3
    assert decide(pool(min_size=2), NEW, members, 4).start == []
    assert decide(pool(min_size=8), NEW, members, 1).start == []


def test_shrinking_removes_the_oldest_idle_and_never_a_claimed_one():
    claimed, oldest, newest = container(CLAIMED), container(IDLE), container(IDLE)
    step = decide(pool(target_size=2), NEW, [claimed, oldest, newest], 4)

    assert step.remove == [oldest.pk]


def test_paused_starts_nothing_draining_removes_every_idle_one():
    idle, claimed = container(IDLE), container(CLAIMED)

    assert decide(pool(min_size=5, is_paused=True), NEW, [idle], 4).start == []
    assert decide(pool(min_size=5, is_draining=True), NEW, [idle, claimed], 4).remove == [idle.pk]


def test_one_container_of_a_new_version_is_tried_beside_the_old_ones():
    old = [container(IDLE, OLD) for _ in range(3)]
    step = decide(pool(good=OLD, min_size=3), NEW, old, 4)

    assert (step.start, step.remove) == ([NEW], [])
    assert decide(pool(good=OLD, min_size=3), NEW, [*old, container(STARTING)], 4).start == []


def test_while_a_version_is_not_proven_what_is_missing_comes_from_the_last_good_one():
    step = decide(pool(good=OLD, min_size=4), NEW, [container(IDLE, OLD)], 4)

    assert step.start == [NEW, OLD, OLD]


def test_a_proven_version_replaces_the_old_ones_without_going_below_the_desired_size():
    old = [container(IDLE, OLD) for _ in range(3)]
    first = container(IDLE)
    step = decide(pool(min_size=3), NEW, [*old, first], 4)

    assert step.start == [NEW] * 2
    assert step.remove == [old[0].pk]


def test_a_version_that_failed_is_not_tried_again_and_the_last_good_one_keeps_the_size():
    old = [container(IDLE, OLD)]
    step = decide(pool(good=OLD, halted=NEW, min_size=2), NEW, old, 4)

    assert (step.start, step.remove) == ([OLD], [])
    assert decide(pool(good=OLD, halted=NEW, min_size=1), Template(3, None), old, 4).start == [Template(3, None)]


def test_without_headroom_one_idle_container_is_swapped_at_a_time():
    claimed, old = container(CLAIMED, OLD), [container(IDLE, OLD), container(IDLE, OLD)]
    full = pool(good=OLD, min_size=3, max_size=3)
    step = decide(full, NEW, [claimed, *old], 4)
    assert (step.start, step.remove) == ([], [old[0].pk])

    removing = container(REMOVING, OLD)
    assert decide(full, NEW, [claimed, removing, old[1]], 4) == decide(full, NEW, [claimed, removing, old[1]], 4)
    assert decide(full, NEW, [claimed, removing, old[1]], 4).remove == []
    assert decide(full, NEW, [claimed, old[1]], 4).start == [NEW]


def test_with_none_idle_and_no_headroom_a_roll_waits_for_a_release():
    members = [container(CLAIMED, OLD), container(CLAIMED, OLD)]
    step = decide(pool(good=OLD, min_size=2, max_size=2), NEW, members, 4)

    assert (step.start, step.remove) == ([], [])


def test_another_network_rolls_like_another_version():
    old = [container(IDLE, NEW)]

    assert decide(pool(good=NEW, min_size=1), OTHER, old, 4).start == [OTHER]


class World:
    """A pool whose starts and removals succeed or fail by a script, in any order."""

    def __init__(self, size: int, maximum: int, claimed: int, is_new_good: bool) -> None:
        self.pool = pool(good=OLD, min_size=size, max_size=maximum)
        self.members = [container(CLAIMED, OLD) for _ in range(claimed)]
        self.members += [container(IDLE, OLD) for _ in range(max(0, min(size, maximum) - claimed))]
        self.is_new_good = is_new_good
        self.failed = 0

    def step(self) -> bool:
        step = decide(self.pool, NEW, self.members, 4)
        for template in step.start:
            assert len(self.members) < self.pool.max_size, "P2"
            self.members.append(container(STARTING, template))
        for member in self.members:
            if member.pk in step.remove:
                assert member.state == IDLE
                member.state = REMOVING
        if self.pool.good != NEW:
            assert sum(m.template == NEW for m in self.members) <= 1, "two containers of an unproven version"
        return bool(step.start or step.remove)

    def advance(self, index: int) -> None:
        under_way = [m for m in self.members if m.state in (STARTING, REMOVING)]
        if not under_way:
            return
        member = under_way[index % len(under_way)]
        if member.state == REMOVING:
            self.members.remove(member)
        elif member.template == NEW and not self.is_new_good:
            self.members.remove(member)
            self.failed += 1
            self.pool.halted_version_id, self.pool.halted_network = NEW.version_id, NEW.network
        else:
            member.state = IDLE
            if member.template == NEW:
                self.pool.good_version_id = NEW.version_id

    def release_all(self) -> None:
        self.members = [m for m in self.members if m.state != CLAIMED]


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(0, 6),
    maximum=st.integers(1, 6),
    claimed=st.integers(0, 4),
    is_new_good=st.booleans(),
    order=st.lists(st.integers(0, 5), max_size=60),
)
def test_every_roll_ends_with_the_right_version_and_size(size, maximum, claimed, is_new_good, order):
    """Whatever order starts and removals end in: never above maxSize, and in the end all idle ones are of one version,
    the new one if it is good, the old one if it is not, as many as desired."""
    size = min(size, maximum)
    world = World(size, maximum, min(claimed, maximum), is_new_good)
    for index in order:
        world.step()
        world.advance(index)
    world.release_all()
    for index in range(200):
        if not world.step() and not any(m.state in (STARTING, REMOVING) for m in world.members):
            break
        world.advance(index)

    assert [m.state for m in world.members] == [IDLE] * size
    assert world.failed <= 1
    if size:
        assert {m.template for m in world.members} == {NEW if is_new_good else OLD}
