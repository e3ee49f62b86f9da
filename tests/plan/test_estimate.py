"""What follows for a run, whatever the rates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.conftest import EVALUATION, POOL, RATES, plan_of
from zpd_ray.errors import ZpdError
from zpd_ray.plan.estimate import Source
from zpd_ray.plan.rates import Line, Phases
from zpd_ray.plan.scopes import PROBE, RANDOM, ZONE


def larger(pool: Source, factor: int) -> Source:
    return replace(
        pool,
        rows=factor * pool.rows,
        items=factor * pool.items,
        prompt_tokens=factor * pool.prompt_tokens,
        response_tokens=factor * pool.response_tokens,
        parts=factor * pool.parts,
    )


def test_twice_the_items_take_twice_as_long_to_measure() -> None:
    free = Phases(Line(0.0, 0.0), Line(0.0, 0.0))
    alone = {"fit": free, "select": free, "engine_start": 0.0, "engine_again": 0.0}
    rates = replace(RATES, measuring=Phases(Line(0.0, 1e-4), Line(0.0, 2e-4)), **alone)
    one, two = plan_of(POOL, rates), plan_of(larger(POOL, 2), rates)
    for small, large in zip(one.scopes[0].stages, two.scopes[0].stages, strict=True):
        assert large.selecting.seconds == pytest.approx(2 * small.selecting.seconds)
        assert large.read == 2 * small.read
        assert large.generated == 2 * small.generated


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 100))
def test_more_actors_never_take_longer(one: int, other: int, parts: int) -> None:
    pool = replace(POOL, parts=parts)
    plans = [plan_of(pool, cluster={"actors": actors}) for actors in sorted((one, other))]
    for few, many in zip(plans[0].scopes, plans[1].scopes, strict=True):
        assert many.whole.seconds <= few.whole.seconds + 1e-9


NO_OVERHEAD = replace(
    RATES,
    measuring=Phases(Line(0.0, 1e-4), Line(0.0, 2e-4)),
    fit=Phases(Line(0.0, 1e-5), Line(0.0, 1e-5)),
    select=Phases(Line(0.0, 1e-5), Line(0.0, 1e-5)),
)


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0.001, 0.3), st.integers(1, 4), st.integers(100, 10**6))
def test_a_narrower_scope_never_takes_more(fraction: float, stages: int, items: int) -> None:
    pool = replace(POOL, items=items)
    planned = plan_of(pool, NO_OVERHEAD, stages=stages, select={"budget": {"fraction": fraction}})
    for wide, narrow in pairwise(planned.scopes):
        assert narrow.total.measured <= wide.total.measured
        assert narrow.total.read <= wide.total.read
        assert narrow.total.selecting.seconds <= wide.total.selecting.seconds + 1e-9
        assert narrow.whole.seconds <= wide.whole.seconds + 1e-9
        assert narrow.total.trained == wide.total.trained


def test_scopes_differ_after_the_first_stage_alone() -> None:
    pool, zone, probe, random = plan_of(select={"replay": 0.2}).scopes
    assert [zone.scope, probe.scope, random.scope] == [ZONE, PROBE, RANDOM]
    assert pool.stages[0] == zone.stages[0] == probe.stages[0]
    assert [stage.measured for stage in zone.stages] == [10_000, 1400, 1400]  # 400 + 2.5 x 80 % of 500
    assert [stage.measured for stage in probe.stages] == [10_000, 400, 400]
    assert random.total.measured == random.total.read == 0


def test_no_draw_is_free_where_responses_of_the_models_own_are_trained_on() -> None:
    pool, zone, probe = plan_of(train={"target": "own"}).scopes
    assert [zone.scope, probe.scope] == [ZONE, PROBE]
    assert pool.stages[0].measured == 10_000


def test_rounds_have_their_overhead() -> None:
    """400 probes in rounds of 128, 256 and 400, then the candidates; a fit after each and at the end."""
    free = replace(RATES, measuring=Phases(Line(0.0, 1e-4), Line(0.0, 2e-4)))
    costly = replace(RATES, measuring=Phases(Line(1.0, 1e-4), Line(1.0, 2e-4)))
    for at, calls in ((0, 1), (1, 4), (2, 3)):
        less, more = (plan_of(rates=rates).scopes[at].stages[1].selecting.seconds for rates in (free, costly))
        assert more - less == pytest.approx(calls)


def test_the_whole_is_the_sum_of_what_is_told() -> None:
    planned = plan_of(evaluation=EVALUATION)
    for scope in planned.scopes:
        parts = [*planned.before.values(), planned.base, planned.after]
        parts += [scope.total.selecting, scope.total.training, scope.total.evaluating]
        assert scope.whole.seconds == pytest.approx(sum(each.seconds for each in parts))
        assert scope.ratio == pytest.approx(scope.total.selecting.seconds / scope.total.training.seconds)
        assert scope.whole.se > 0


def test_nodes_of_two_kinds_overlap_the_stages() -> None:
    shared = plan_of(evaluation=EVALUATION)
    split = plan_of(evaluation=EVALUATION, cluster={"placement": "split"})
    for one, other in zip(shared.scopes, split.scopes, strict=True):
        assert other.whole.seconds < one.whole.seconds
        assert other.whole.seconds > one.total.training.seconds


def test_a_run_that_does_not_train() -> None:
    planned = plan_of(train={"method": "none"})
    for scope in planned.scopes:
        assert scope.ratio is None
        assert scope.total.trained == scope.total.training.seconds == 0


def test_hours_count_what_is_held() -> None:
    total = (
        plan_of(cluster={"gpus_per_actor": 0.5, "gpus_per_train_worker": 1}, train={"workers": 2})
        .scopes[0]
        .total
    )
    assert total.selecting_gpu_hours == pytest.approx(total.selecting.seconds * 4 * 0.5 / 3600)
    assert total.training_gpu_hours == pytest.approx(total.training.seconds * 2 / 3600)
    assert total.selecting_cpu_hours == pytest.approx(total.selecting.seconds * 4 / 3600)


def test_a_budget_in_tokens_buys_items_of_the_mean_length() -> None:
    planned = plan_of(select={"budget": {"tokens": 4000}})
    assert planned.budget == 100
    assert planned.scopes[0].stages[0].trained == 4000


def test_an_estimated_pool_is_less_certain() -> None:
    counted, estimated = plan_of().scopes[0], plan_of(replace(POOL, items_se=1000.0)).scopes[0]
    assert estimated.whole.seconds == counted.whole.seconds
    assert estimated.whole.se > counted.whole.se


def test_a_budget_beyond_the_pool_is_refused() -> None:
    with pytest.raises(ZpdError, match="more than the pool has"):
        plan_of(select={"budget": {"items": 20_000}})
