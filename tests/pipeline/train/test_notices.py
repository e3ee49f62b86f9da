"""When the built-in loop asks whether a node will go, and when it saves because of it. Without Ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zpd_ray.pipeline.train.notices import ASK_SECONDS, Notices


@dataclass
class World:
    """A stage as worker 0 sees it, with steps and checkpoints that take so many seconds."""

    notice: float = float("inf")
    step: float = 0.1
    save: float = 0.0
    rank: int = 0
    may_be_preempted: bool = True
    now: float = 0.0
    asked: list[float] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)
    exchanged: int = 0

    def preempted(self) -> bool:
        self.asked.append(self.now)
        return self.now >= self.notice

    def most(self, own: float) -> float:
        self.exchanged += 1
        return own

    def train(self, seconds: float) -> int:
        """The steps that fit into so many seconds."""
        notices, steps = Notices(self, self.most, lambda: self.now), 0
        while self.now < seconds:
            self.now += self.step
            steps += 1
            if notices.arrived():
                self.now += self.save
                self.saved.append(self.now)
        return steps


def test_on_a_ray_of_our_own_nothing_is_asked_or_exchanged() -> None:
    world = World(may_be_preempted=False, notice=0.0)
    world.train(60)
    assert (world.asked, world.saved, world.exchanged) == ([], [], 0)


def test_it_is_asked_every_two_seconds_whatever_a_step_takes() -> None:
    world = World(step=0.01)
    assert world.train(60) == world.exchanged
    assert 25 < len(world.asked) <= 31
    assert world.saved == []
    slow = World(step=20.0)
    slow.train(200)
    assert len(slow.asked) == 10  # after each


def test_a_worker_asks_when_worker_0_says_so_and_only_then() -> None:
    """Else some would wait for the others in a question that these do not ask."""
    other, due = World(rank=1, notice=0.0), iter([1.0, 0.0, 0.0, 1.0])
    notices = Notices(other, lambda own: own + next(due), lambda: 1e6)
    assert [notices.arrived() for _ in range(4)] == [True, False, False, True]
    assert len(other.asked) == 2


@given(st.floats(0, 50), st.floats(0.01, 5), st.floats(0, 20))
def test_little_is_lost_with_the_node_and_half_of_the_time_is_trained(
    notice: float, step: float, save: float
) -> None:
    world = World(notice=notice, step=step, save=save)
    world.train(notice + 120)
    assert world.saved[0] <= notice + ASK_SECONDS + 2 * step + save
    # A node takes along what came after the last checkpoint, and that one if it was still on its way.
    gaps = [after - before for before, after in pairwise([*world.saved, world.now])]
    assert max(gaps) <= max(ASK_SECONDS, save + step) + 3 * step + save
    saving = len(world.saved) * save
    assert saving <= world.now - notice - saving + save + step
