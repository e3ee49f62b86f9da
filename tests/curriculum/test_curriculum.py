"""What a curriculum draws, learns, forgets and keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.special import expit

from zpd_ray.curriculum import Curriculum
from zpd_ray.errors import ZpdError


def taught(curriculum: Curriculum, b: np.ndarray, steps: int, theta: float = 0.0, seed: int = 0) -> list[Any]:
    """``steps`` steps of 16 prompts and 8 rollouts by true difficulty ``b`` of rows; what was drawn."""
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(steps):
        ids = curriculum.next(16)
        curriculum.observe(ids, rng.binomial(8, expit(theta - b[ids])), 8)
        drawn.append(ids)
    return drawn


@pytest.fixture(scope="module")
def b() -> np.ndarray:
    return 2.0 * np.random.default_rng(1).normal(size=400)


@given(st.integers(1, 60), st.integers(0, 5), st.floats(0, 1))
@settings(max_examples=12, deadline=None)
def test_as_many_as_asked_all_different_and_known(n: int, seed: int, explore: float) -> None:
    ids = [f"prompt {i}" for i in range(60)]
    drawn = Curriculum(ids, explore=explore, seed=seed).next(n)
    assert len(set(drawn)) == n
    assert set(drawn) <= set(ids)


def test_the_same_seed_and_calls_draw_the_same(b: np.ndarray) -> None:
    assert_array_equal(taught(Curriculum(400, seed=3), b, 10), taught(Curriculum(400, seed=3), b, 10))
    assert (Curriculum(400, seed=3).next(16) != Curriculum(400, seed=4).next(16)).any()


def test_from_its_state_it_goes_on_as_if_nothing_had_been(b: np.ndarray) -> None:
    whole = Curriculum(400, seed=3)
    taught(whole, b, 5)
    whole.next(16)  # in flight
    state = whole.state_dict()
    resumed = Curriculum(400, seed=3)
    resumed.load_state_dict(state)
    assert_array_equal(taught(whole, b, 5, seed=9), taught(resumed, b, 5, seed=9))
    assert_array_equal(whole.score(), resumed.score())
    again = Curriculum(400, seed=3)
    again.load_state_dict(state)  # what came after has not changed it
    assert not np.array_equal(again.score(), whole.score())


def test_what_is_drawn_gets_near_to_one_half(b: np.ndarray) -> None:
    curriculum = Curriculum(400, explore=0.0, seed=0)
    p = expit(-b[np.concatenate(taught(curriculum, b, 40)[20:])])
    everything = expit(-b)
    assert (p * (1 - p)).mean() > 0.22 > 0.17 > (everything * (1 - everything)).mean()
    assert abs(curriculum.metrics()["ability"]) < 0.5  # where the mean of b is 0


def test_difficulties_that_are_given_are_used_from_the_first_draw(b: np.ndarray) -> None:
    drawn = Curriculum(400, b, 0.5, ability=1.0, ability_sd=0.5, explore=0.0).next(20)
    assert np.abs(b[drawn] - 1.0).max() <= np.sort(np.abs(b - 1.0))[19] + 1e-12


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_is_drawn_at_random(b: np.ndarray, share: float) -> None:
    """Of prompts that all are known to be too hard but 50, those too hard that are drawn."""
    hard = np.where(np.arange(400) < 50, 0.0, 9.0)
    curriculum = Curriculum(400, hard, 0.1, ability_sd=0.1, explore=share, seed=1)
    drawn = np.concatenate([curriculum.next(4) for _ in range(10)])
    others = (hard[drawn] > 0).sum()
    assert others == 0 if share == 0 else 0.5 * share * 40 <= others <= 40 * share


def test_also_one_at_a_time_some_are_drawn_at_random() -> None:
    hard = np.where(np.arange(1000) < 500, 0.0, 9.0)
    curriculum = Curriculum(1000, hard, 0.1, ability_sd=0.1, explore=0.2, seed=1)
    assert 4 <= sum(hard[curriculum.next(1)[0]] > 0 for _ in range(100)) <= 20


def test_what_is_in_flight_is_not_drawn_again_before_it_must() -> None:
    curriculum = Curriculum(10)
    first, second = curriculum.next(4), curriculum.next(4)
    assert not set(first) & set(second)
    curriculum.observe(first[:2], [0, 0], 0)  # not used: free again
    third = curriculum.next(4)
    assert not set(third) & (set(second) | set(first[2:]))
    assert len(set(curriculum.next(10))) == 10
    assert curriculum.metrics()["asked"] == 0.0


def test_parts_of_a_batch_are_the_batch() -> None:
    """A prompt whose rollouts come in two rows, and rows that say nothing."""
    one, two = Curriculum(["a", "b", "c"]), Curriculum(["a", "b", "c"])
    one.observe(["a", "b"], [3, 8], [8, 8])
    two.observe(["b", "a", "c", "b", "a"], [4, 1, 0, 4, 2], [4, 3, 0, 4, 5])
    assert_array_equal(one.score(), two.score())
    assert two.metrics()["asked"] == pytest.approx(2 / 3)


def test_old_evidence_fades(b: np.ndarray) -> None:
    """After long, a prompt that was far too hard is as good as any other that is not known."""
    curriculum = Curriculum(50)
    curriculum.observe(range(25), [0] * 20 + [8] * 5, 8)
    before = curriculum.score()
    curriculum.observe(range(25, 30), [2] * 5, 8, steps=3000)
    after = curriculum.score()
    assert before[0] < 0.5 * before[30]
    assert after[0] > 0.7 * after[30]
    curriculum.observe([], [], [], steps=0)  # no time, nothing seen: nothing changes
    assert_array_equal(after, curriculum.score())


def test_prompts_that_get_easier_by_their_own_training_do_not_pass_for_ability() -> None:
    """theta is 0 all along; without delta the filter has it at 15 in the end."""
    rng, b = np.random.default_rng(0), np.random.default_rng(1).normal(size=2000)
    curriculum = Curriculum(2000, seed=0)
    for _ in range(60):
        ids = curriculum.next(32)
        curriculum.observe(ids, rng.binomial(8, expit(-b[ids])), 8)
        b[ids] -= 0.5
    told = curriculum.metrics()
    assert abs(told["ability"]) < 1.5
    assert 0.3 < told["practice"] < 0.9


def test_ability_follows_a_model_that_learns(b: np.ndarray) -> None:
    curriculum, told = Curriculum(400, seed=0), []
    for theta in (-2.0, 0.0, 2.0):
        taught(curriculum, b, 30, theta)
        told.append(curriculum.metrics()["ability"])
    assert told[0] < told[1] - 1.0 < told[2] - 2.0


@pytest.mark.parametrize("kind", [str, int], ids=["strings", "numbers"])
def test_ids_are_given_back_as_they_came(kind: type) -> None:
    ids = [kind(i * 7 + 3) for i in range(5)]
    curriculum = Curriculum(ids)
    assert sorted(curriculum.next(5)) == sorted(ids)
    curriculum.observe(ids[::-1], [8, 0, 0, 0, 0], 8)
    assert curriculum.score([ids[4]]) != curriculum.score([ids[0]])


BAD_IDS = {
    "none": ([], "item_ids is empty"),
    "no prompts": (0, "item_ids is empty"),
    "twice": (["a", "b", "a"], "'a' twice"),
    "mixed": (["a", 3], "strings alone"),
    "mixed the other way": ([3, "a"], "whole numbers"),
    "floats": (np.array([0.5, 1.5]), "item_ids holds"),
    "a share among numbers": ([3, 1.5], "whole numbers"),
    "nested": ([["a"], ["b"]], "flat list"),
    "missing": (["a", None], "item_ids holds"),
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_bad_ids_are_refused(case: str) -> None:
    ids, told = BAD_IDS[case]
    with pytest.raises(ZpdError, match=told):
        Curriculum(ids)


BAD_ROLLOUTS: dict[str, tuple[Any, ...]] = {
    "unknown id": (["d"], [1], [8], "'d'"),
    "another kind of id": ([0], [1], [8], "one kind"),
    "more right than rollouts": (["a"], [9], [8], "9 of 8"),
    "a share": (["a"], [0.5], [8], "0.5 of 8"),
    "not a number": (["a"], [np.nan], [8], "nan of 8"),
    "negative": (["a"], [-1], [8], "-1 of 8"),
    "endless": (["a"], [1], [np.inf], "1 of inf"),
    "one too few": (["a", "b"], [1], [8, 8], "shapes"),
}


@pytest.mark.parametrize("case", BAD_ROLLOUTS)
def test_bad_rollouts_are_refused_and_change_nothing(case: str) -> None:
    *given_, told = BAD_ROLLOUTS[case]
    curriculum = Curriculum(["a", "b", "c"])
    before = curriculum.state_dict()
    with pytest.raises(ZpdError, match=told):
        curriculum.observe(*given_)
    for name, value in curriculum.state_dict().items():
        assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    "wrong",
    [
        {"difficulty": [0.0, 1.0]},
        {"difficulty": np.nan},
        {"difficulty_sd": 0.0},
        {"ability": np.inf},
        {"ability_sd": -1.0},
        {"ability_drift": np.nan},
        {"difficulty_drift": -0.1},
        {"explore": 1.5},
        {"seed": -1},
    ],
    ids=str,
)
def test_a_belief_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ZpdError, match=f"{next(iter(wrong))} .*expected"):
        Curriculum(3, **wrong)


def test_asking_too_many_and_a_state_of_others_are_refused() -> None:
    curriculum = Curriculum(["a", "b"])
    for n in (0, 3):
        with pytest.raises(ZpdError, match=f"{n} prompts asked"):
            curriculum.next(n)
    with pytest.raises(ZpdError, match="steps is -1"):
        curriculum.observe(["a"], [1], [8], steps=-1)
    with pytest.raises(ZpdError, match="other prompts"):
        Curriculum(["b", "a"]).load_state_dict(curriculum.state_dict())
    with pytest.raises(ZpdError, match="lacks"):
        curriculum.load_state_dict({"step": 1.0})
