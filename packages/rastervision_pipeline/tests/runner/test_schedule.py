from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.run_plan import Step
from rastervision.pipeline.runner.schedule import Schedule


@st.composite
def plans(draw: st.DrawFn) -> list[Step]:
    """Steps with shuffled ids, each of which needs some of those before it."""
    ids = draw(st.permutations(range(draw(st.integers(0, 12)))))
    steps = []
    for i, step_id in enumerate(ids):
        needs = draw(st.lists(st.sampled_from(ids[:i]), unique=True, max_size=3)) if i else []
        steps.append(Step(step_id, "work", needs=tuple(needs), gpu=draw(st.booleans())))
    return steps


@given(steps=plans(), jobs=st.integers(1, 4), gpu_jobs=st.integers(1, 3), seed=st.integers(0, 99))
def test_all_steps_run_after_what_they_need_and_within_the_limits(
    steps: list[Step], jobs: int, gpu_jobs: int, seed: int
) -> None:
    schedule = Schedule(steps, jobs, gpu_jobs)
    rng = random.Random(seed)
    done: set[int] = set()

    while started := schedule.start() or list(schedule.running.values()):
        assert all(done.issuperset(step.needs) for step in started)
        running = list(schedule.running.values())
        assert len(running) <= jobs
        assert sum(step.gpu for step in running) <= gpu_jobs
        # nothing waits that could run
        could = [s for s in schedule.waiting if done.issuperset(s.needs)]
        gpus = sum(step.gpu for step in running)
        assert len(running) == jobs or not [s for s in could if not s.gpu or gpus < gpu_jobs]
        ended = rng.choice(running)
        schedule.finish(ended)
        done.add(ended.id)

    assert done == {step.id for step in steps}
    assert schedule.waiting == []


@given(steps=plans(), seed=st.integers(0, 99))
def test_one_at_a_time_is_the_order_of_the_plan(steps: list[Step], seed: int) -> None:
    schedule = Schedule(steps, jobs=1, gpu_jobs=1)
    order = []

    while started := schedule.start():
        order += started
        schedule.finish(started[0])

    assert order == steps


def test_steps_that_need_a_failed_one_never_start() -> None:
    steps = [Step(0, "a"), Step(1, "b", needs=(0,)), Step(2, "c", needs=(1,)), Step(3, "d")]
    schedule = Schedule(steps, jobs=4, gpu_jobs=1)

    assert schedule.start() == [steps[0], steps[3]]
    schedule.finish(steps[0], succeeded=False)
    schedule.finish(steps[3])

    assert schedule.start() == []
    assert schedule.waiting == steps[1:3]


def test_needs_that_are_not_in_the_plan_are_done() -> None:
    assert Schedule([Step(1, "b", needs=(0,))], 1, 1).start() == [Step(1, "b", needs=(0,))]


def test_circles_and_limits_that_let_nothing_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"need each other.*: (a -> b -> a|b -> a -> b)\."):
        Schedule([Step(0, "a", needs=(1,)), Step(1, "b", needs=(0,))], 1, 1)
    for limits in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ConfigError, match="1 or more"):
            Schedule([], *limits)
