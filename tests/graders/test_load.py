"""Graders by name, users' functions, and grading from the measurement."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zpd_ray.engines import Scores
from zpd_ray.errors import ZpdError
from zpd_ray.graders import GRADERS, grade_item, load
from zpd_ray.graders.greedy_match import matches


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's, importable for one test."""
    name = f"users_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def same(completion, answer): return completion == answer\n"
        "def same_numpy(completion, answer): return np.bool_(completion == answer)\n"
        "def fails(completion, answer): return 1 / 0 > 0\n"
        "def leaves(completion, answer): raise SystemExit(3)\n"
        "def share(completion, answer): return 0.5\n"
        "def above(completion, answer): return 1.5\n"
        "def whole(completion, item): return item['group'] == completion\n"
        "def nothing(completion, answer): pass\n"
        "def short(completion):\n    assert len(completion) != 3\n    return len(completion) < 2\n"
        "def any_number(*texts): return len(texts) == 2\n"
        "class Group:\n    same = staticmethod(same)\n"
        "constant = 5\n"
    )
    (tmp_path / f"broken_{name}.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


OF_SCORES = ("greedy_match", "likelihood")


@pytest.mark.parametrize("name", sorted(GRADERS))
def test_every_known_name_loads(name: str) -> None:
    grader = load(name)
    assert grader.needs_completion is (name not in OF_SCORES)
    assert grader.needs_answer is (name not in OF_SCORES)


@pytest.mark.parametrize(
    ("wrong", "near"), [("numericc", "numeric"), ("exat", "exact"), ("greedy", "greedy_match")]
)
def test_an_unknown_name_gets_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ZpdError, match=f"unknown grader '{wrong}'.*did you mean '{near}'"):
        load(wrong)


@pytest.mark.parametrize("function", ["same", "same_numpy", "Group.same"])
def test_a_function_grades(functions: str, function: str) -> None:
    grader = load(f"{functions}:{function}")
    assert grader.grade("a", "a", None) == (True, True)
    assert grader.grade("a", "b", None) == (False, True)


def test_a_function_may_give_a_share_and_take_the_item(functions: str) -> None:
    assert load(f"{functions}:share").grade("a", "b", None) == (0.5, True)
    grader = load(f"{functions}:whole")
    assert not grader.needs_answer
    assert grade_item(grader, "sums", {"group": "sums", "answer": None}) == (True, True)
    assert grade_item(load(f"{functions}:same"), "4", {"answer": "4", "choices": None}) == (True, True)


def test_a_function_may_judge_completions_alone(functions: str) -> None:
    grader = load(f"{functions}:short")
    assert not grader.needs_answer
    assert grader.needs_completion
    item = {"answer": None, "choices": None}
    assert [grade_item(grader, text, item) for text in ("", "ab")] == [(True, True), (False, True)]
    with pytest.raises(ZpdError, match=r"raised AssertionError: .*, on the completion 'abc'; it must return"):
        grader.grade("abc", "", None)
    either = load(f"{functions}:any_number")
    assert either.needs_answer
    assert either.grade("a", "b", None) == (True, True)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("fails", "raised ZeroDivisionError"),
        ("leaves", "raised SystemExit"),
        ("above", "returned 1.5 of type float"),
        ("nothing", "returned None"),
    ],
)
def test_a_function_that_fails_is_an_error_and_not_a_wrong_answer(
    functions: str, function: str, problem: str
) -> None:
    with pytest.raises(ZpdError, match=f"{functions}:{function} {problem}"):
        load(f"{functions}:{function}").grade("a", "b", None)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("{}:sane", "nearest are same"),
        ("{}:constant", "is a int"),
        ("broken_{}:f", "RuntimeError: no licence"),
        ("no_such_module:f", "PYTHONPATH"),
        ("{}:", "no function name"),
        ("a b:c", "no function name"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(functions: str, name: str, problem: str) -> None:
    with pytest.raises(ZpdError, match=problem):
        load(name.format(functions))


def test_greedy_match_needs_every_token() -> None:
    n_greedy, n_tokens = np.array([3, 2, 0, 5], np.int32), np.array([3, 3, 0, 5], np.int32)
    assert matches(n_greedy, n_tokens).tolist() == [True, False, False, True]
    scores = Scores(np.zeros(4, np.float32), n_tokens, n_greedy, [None] * 4)
    assert load("greedy_match").from_scores(scores).tolist() == [1, 0, 0, 1]
    with pytest.raises(ZpdError, match="measurements"):
        load("greedy_match").grade("a", "a", None)


def test_likelihood_is_the_product_of_the_probabilities_of_the_tokens() -> None:
    probabilities = [[0.5, 0.25], [1.0, 1.0, 1.0], [1e-300], [0.9]]
    nll = np.array([-np.log(row).mean() for row in probabilities], np.float32)
    n_tokens = np.array([len(row) for row in probabilities], np.int32)
    nll[3] = np.nan
    share = load("likelihood").from_scores(Scores(nll, n_tokens, -n_tokens, [None] * 3 + ["failed"]))
    np.testing.assert_allclose(share[:3], [0.125, 1.0, 1e-300], rtol=1e-4)
    assert np.isnan(share[3])


def test_a_class_without_completions_must_grade_scores(functions: str, tmp_path: Path) -> None:
    facts = "needs_answer = needs_completion = guessable = False\n    accepts = options = grade = None\n"
    (tmp_path / f"{functions}_class.py").write_text(f"class Bare:\n    {facts}")
    with pytest.raises(ZpdError, match="from_scores"):
        load(f"{functions}_class:Bare")


def test_graders_and_readers_import_neither_ray_nor_torch() -> None:
    code = (
        "import sys, zpd_ray.graders;"
        "from zpd_ray.readers import duplicates, formats, items;"
        "print([m for m in ('ray', 'torch', 'transformers', 'pandas', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
