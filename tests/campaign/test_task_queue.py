"""The state of a run, without a scheduler and with a clock that is set by hand."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.cells import Address
from rtsx.campaign.recipe import RetrySpec
from rtsx.campaign.records import Failure
from rtsx.campaign.task_queue import CellResult, Submission, TaskQueue
from rtsx.storage.retry import FailureKind

CELL = (3, -4)


def failure(cell: Address, kind: FailureKind, *, attempts: int = 1) -> Failure:
    return Failure(
        cell=cell, kind=kind, error="E", message="m", traceback="", attempts=attempts, when="", run="r", worker=""
    )


def failed(start: Submission, kind: FailureKind) -> CellResult:
    return CellResult(cell=start.cell, state="failed", failure=failure(start.cell, kind, attempts=start.attempt))


def only(queue: TaskQueue, now: float) -> Submission:
    (start,) = queue.take(9, now)
    return start


def test_what_passes_is_tried_again_after_a_pause_that_doubles_and_is_bounded() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec(attempts=6, backoff_s=10, longest_backoff_s=50))
    now, pauses = 0.0, []
    for attempt in range(1, 6):
        start = only(queue, now)
        assert start == Submission(CELL, attempt, alone=False)
        assert queue.completed(failed(start, "passing"), now) is None
        due = queue.next_retry()
        assert due is not None
        assert queue.take(9, due - 1e-6) == []
        pauses.append(due - now)
        now = due
    assert all(0.5 * longest <= pause <= longest for pause, longest in zip(pauses, (10, 20, 40, 50, 50), strict=True))
    last = queue.completed(failed(only(queue, now), "passing"), now)
    assert last is not None
    assert last.attempts == 6
    assert (queue.is_finished, queue.set_aside, queue.retried) == (True, [last], 5)


def test_pauses_are_spread_so_that_what_failed_together_comes_back_apart() -> None:
    queue = TaskQueue([(0, x) for x in range(20)], retry=RetrySpec(backoff_s=10))
    for start in queue.take(20, 0.0):
        queue.completed(failed(start, "passing"), 0.0)
    assert len(queue.take(20, 7.5)) not in (0, 20)


def test_what_lasts_is_set_aside_at_once() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec())
    given_up = queue.completed(failed(only(queue, 0.0), "lasting"), 0.0)
    assert given_up == queue.set_aside[0]
    assert queue.is_finished
    assert queue.stopped is None


def test_what_halts_stops_the_run_and_leaves_its_cell() -> None:
    queue = TaskQueue([(0, 0), (0, 1), (0, 2)], retry=RetrySpec())
    first, second = queue.take(2, 0.0)
    assert queue.completed(failed(first, "halting"), 0.0) is None
    assert queue.stopped == "cell (0, 0) failed as every other would: E: m"
    assert not queue.is_finished  # one is still out
    assert queue.take(9, 0.0) == []
    queue.completed(CellResult(cell=second.cell, state="done"), 0.0)
    assert (queue.is_finished, queue.done, queue.left, queue.set_aside) == (True, 1, 2, [])


def test_a_run_bears_so_many_failures_and_no_more() -> None:
    queue = TaskQueue([(0, x) for x in range(9)], retry=RetrySpec(most_failures=3))
    while starts := queue.take(1, 0.0):
        queue.completed(failed(starts[0], "lasting"), 0.0)
    assert len(queue.set_aside) == 3
    assert queue.left == 6
    assert queue.stopped is not None
    assert "3 cells were set aside" in queue.stopped
    assert "cell (0, 2): E: m" in queue.stopped


def test_a_leased_cell_comes_back_when_the_lease_ends_and_loses_no_attempt() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec(attempts=1))
    for now in (0.0, 30.0, 60.0):
        start = only(queue, now)
        assert start.attempt == 1
        queue.completed(CellResult(cell=CELL, state="leased", free_after_s=30.0), now)
        assert queue.next_retry() == now + 30
        assert queue.take(9, now + 29) == []
    queue.completed(CellResult(cell=only(queue, 90.0).cell, state="skipped"), 99.0)
    assert (queue.skipped, queue.is_finished) == (1, True)


def test_the_first_loss_costs_no_attempt_and_what_is_lost_alone_does() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec(attempts=2, backoff_s=0))
    only(queue, 0.0)
    assert queue.worker_lost(failure(CELL, "passing"), 0.0) is None
    for attempt in (1, 2):
        assert only(queue, 0.0) == Submission(CELL, attempt, alone=True)
        given_up = queue.worker_lost(failure(CELL, "passing"), 0.0)
    assert given_up is not None
    assert given_up.attempts == 2


def test_a_scheduler_that_tried_again_by_itself_has_used_these_attempts() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec(attempts=4, backoff_s=0))
    only(queue, 0.0)
    queue.worker_lost(failure(CELL, "passing"), 0.0, times=4)
    only(queue, 0.0)
    given_up = queue.worker_lost(failure(CELL, "passing"), 0.0, times=4)
    assert given_up is not None
    assert given_up.attempts == 4


def test_few_cells_fly_alone_at_a_time_and_the_others_go_on() -> None:
    queue = TaskQueue([(0, x) for x in range(6)], retry=RetrySpec())
    for start in queue.take(3, 0.0):
        queue.worker_lost(failure(start.cell, "passing"), 0.0)
    starts = queue.take(9, 0.0, lanes=2)
    assert [start.cell for start in starts if start.alone] == [(0, 0), (0, 1)]
    assert [start.cell for start in starts if not start.alone] == [(0, 3), (0, 4), (0, 5)]
    queue.completed(CellResult(cell=(0, 0), state="done"), 0.0)
    assert queue.take(9, 0.0, lanes=2) == [Submission((0, 2), 1, alone=True)]


def test_a_task_that_never_began_is_started_as_if_nothing_had_been() -> None:
    queue = TaskQueue([CELL], retry=RetrySpec(attempts=1))
    for _ in range(3):
        assert only(queue, 0.0) == Submission(CELL, 1, alone=False)
        queue.returned(CELL)
    assert (queue.left, queue.in_flight, queue.retried) == (1, 0, 0)


def test_no_more_is_taken_than_there_is_room_for() -> None:
    queue = TaskQueue([(0, x) for x in range(100)], retry=RetrySpec())
    assert [start.cell[1] for start in queue.take(3, 0.0)] == [0, 1, 2]
    assert queue.take(0, 0.0) == []
    assert queue.take(-5, 0.0) == []
    assert queue.in_flight == 3


def test_no_cells_is_a_run_that_has_ended() -> None:
    assert TaskQueue([], retry=RetrySpec()).is_finished


@dataclass
class World:
    """What happens to tasks, at random."""

    seed: int
    weights: list[int]
    starts: Counter[Address] = field(default_factory=Counter)
    ends: Counter[Address] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def meet(self, queue: TaskQueue, start: Submission, now: float) -> None:
        fates = ("done", "skipped", "passing", "lasting", "halting", "leased", "lost", "returned")
        (fate,) = self.random.choices(fates, weights=self.weights)
        given_up = None
        if fate in ("done", "skipped"):
            queue.completed(CellResult(cell=start.cell, state=fate), now)  # type: ignore[arg-type]
            self.ends[start.cell] += 1
        elif fate == "leased":
            queue.completed(CellResult(cell=start.cell, state="leased", free_after_s=self.random.random() * 9), now)
        elif fate == "lost":
            self.starts[start.cell] += 1
            given_up = queue.worker_lost(failure(start.cell, "passing"), now, times=self.random.choice((1, 4)))
        elif fate == "returned":
            queue.returned(start.cell)
        else:
            self.starts[start.cell] += 1
            given_up = queue.completed(failed(start, fate), now)  # type: ignore[arg-type]
        if given_up is not None:
            self.ends[start.cell] += 1


@given(
    seed=st.integers(0, 2**16),
    n=st.integers(0, 40),
    attempts=st.integers(1, 5),
    most=st.integers(1, 30),
    weights=st.lists(st.integers(0, 5), min_size=7, max_size=7),
    room=st.integers(1, 12),
)
def test_every_cell_ends_once_whatever_happens(
    seed: int, n: int, attempts: int, most: int, weights: list[int], room: int
) -> None:
    retry = RetrySpec(attempts=attempts, most_failures=most, backoff_s=1, longest_backoff_s=9)
    queue = TaskQueue([(0, x) for x in range(n)], retry=retry, seed=seed)
    world, flying, now = World(seed, [1, *weights]), [], 0.0
    for _ in range(200_000):
        if queue.is_finished:
            break
        starts = queue.take(room - queue.in_flight, now, lanes=2)
        flying += starts
        assert len(flying) == queue.in_flight <= room
        assert sum(start.alone for start in flying) <= 2
        assert len({start.cell for start in flying}) == len(flying), "a cell is in queue twice"
        assert all(start.attempt <= attempts for start in starts)
        if flying:
            world.meet(queue, flying.pop(world.random.randrange(len(flying))), now)
        else:
            due = queue.next_retry()
            assert due is not None, "nothing flies, nothing waits, and the run has not ended"
            now = max(now, due)
    assert queue.is_finished
    assert set(world.ends.values()) <= {1}
    assert max(world.starts.values(), default=0) <= attempts + 1  # the first loss costs none
    assert queue.done + queue.skipped + len(queue.set_aside) == sum(world.ends.values())
    assert queue.left == n - sum(world.ends.values())
    assert len({gone.cell for gone in queue.set_aside}) == len(queue.set_aside)
    if queue.stopped is None:
        assert queue.left == 0
        assert not queue._used  # nothing is remembered of what has ended
        assert not queue._lost_once


@pytest.mark.parametrize("used", [1, 2, 50, 5000])
def test_pauses_stay_bounded_after_any_number_of_attempts(used: int) -> None:
    queue = TaskQueue([], retry=RetrySpec(backoff_s=5, longest_backoff_s=300))
    assert 2.5 <= queue.pause_s(used) <= 300
