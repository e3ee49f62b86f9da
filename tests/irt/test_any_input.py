"""Every public function of irt, on any input of 10,000 items or fewer: an answer in time, or a sentence.

Shapes, all-or-nothing rows and columns, missing responses, priors, floors, covariates of any unit and
frequencies are drawn. What comes back is finite or flagged; what is refused is a ValueError raised by a
check of ours, not by numpy; nothing takes over 5 s of processor time or 1 GB, and no warning is given.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats  # noqa: F401  its import takes a second or two, which is no function's time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zpd_ray import irt

SECONDS, BYTES = 5.0, 1_000_000_000
SLACK = 3.0  # processor time grows where others use the caches and the memory

SMALL = {"items": st.sampled_from([1, 2, 30]), "respondents": st.integers(1, 12)}
ANSWERS = [
    "drawn",
    "all right",
    "all wrong",
    "all or nothing",
    "extreme rows",
    "extreme columns",
    "separated",
]
WORLD = {
    "respondents": st.sampled_from([1, 2, 3, 12, 300]),
    "items": st.sampled_from([1, 2, 3, 30, 300, 1000, 10_000]),
    "rollouts": st.sampled_from([1, 1, 4, 300]),
    "answers": st.sampled_from(ANSWERS),
    "missing": st.sampled_from([0.0, 0.0, 0.2, 0.95]),
    "covariates": st.integers(0, 3),
    "unit": st.sampled_from([1e-8, 1e-3, 1.0, 1e8]),
    "floor": st.sampled_from(["none", "none", "equal", "some", "each", "tiny", "high"]),
    "freq": st.sampled_from(["none", "few", "many", "zeros"]),
    "theta_sd": st.sampled_from([0.01, 1.0, 5.0, 1e6, 1e8, np.inf]),
    "gamma_sd": st.sampled_from([0.01, 3.0, np.inf]),
    "sigma_median": st.sampled_from([1e-3, 0.02, 0.5, 0.5, 50.0]),
    "sigma_log_sd": st.sampled_from([0.0, 0.1, 1.0, np.inf]),
    "seed": st.integers(0, 1000),
}


@dataclasses.dataclass
class World:
    """successes, trials (n_respondents, n_items) and what goes with them."""

    s: np.ndarray
    k: np.ndarray
    x: np.ndarray
    w: np.ndarray
    c: Any
    freq: np.ndarray | None
    rows: np.ndarray | None
    prior: irt.Prior
    rng: np.random.Generator

    @property
    def responses(self) -> np.ndarray:
        """0, 1 and NaN: the first rollout of each."""
        return np.where(self.k > 0, (self.s > self.rng.random(self.s.shape) * self.k).astype(float), np.nan)

    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """Slopes and difficulties of the items."""
        n = self.s.shape[1]
        return np.exp(self.rng.normal(size=n)), 3.0 * self.rng.normal(size=n)


def build(draw: dict[str, Any]) -> World:
    rng = np.random.default_rng(draw["seed"])
    n, m, k = draw["respondents"], draw["items"], draw["rollouts"]
    x = rng.normal(size=(m, draw["covariates"]))
    p = 1.0 / (1.0 + np.exp(x.sum(axis=1) + rng.normal(size=m) - rng.normal(size=(n, 1))))
    if draw["answers"] == "all or nothing":
        p = np.round(p)
    if draw["answers"] in ("all right", "all wrong"):
        p = np.full((n, m), float(draw["answers"] == "all right"))
    if draw["answers"] == "extreme rows":
        p[::2] = np.arange(n)[::2, None] % 4 > 0
    if draw["answers"] == "extreme columns":
        p[:, ::2] = np.arange(m)[::2] % 4 > 0
    if draw["answers"] == "separated":
        p = (np.arange(m) < rng.integers(0, m + 1, (n, 1))).astype(float)
    trials = np.where(rng.random((n, m)) < draw["missing"], 0, k)
    floors = {"none": None, "equal": 0.25, "some": np.where(np.arange(m) % 2, 0.25, 0.0)}
    floors |= {"each": rng.uniform(0.0, 0.5, m), "tiny": 1e-9, "high": 0.99}
    freqs = {"none": None, "few": 5, "many": 1_000_000_000, "zeros": 2}
    most = freqs[draw["freq"]]
    low = 0 if draw["freq"] == "zeros" else 1
    freq, rows = (None if most is None else rng.integers(low, most, size, endpoint=True) for size in (m, n))
    names = ("theta_sd", "gamma_sd", "sigma_median", "sigma_log_sd")
    prior = irt.Prior(**{name: draw[name] for name in names})
    w = draw["unit"] * rng.normal(size=(n, draw["covariates"]))
    return World(
        rng.binomial(trials, p), trials, draw["unit"] * x, w, floors[draw["floor"]], freq, rows, prior, rng
    )


def explanatory(world: World) -> irt.ExplanatoryFit:
    return irt.fit_explanatory(world.s, world.k, world.x, world.c, freq=world.freq, prior=world.prior)


def small(world: World) -> irt.ExplanatoryFit:
    """A quick fit with the respondents and covariates of the world, for what starts from a fit."""
    n, q = world.s.shape[0], world.x.shape[1]
    truth = irt.simulate(n, 50, gamma=(0.5,) * q, trials=2, seed=1)
    prior = dataclasses.replace(world.prior, theta_sd=2.0, gamma_sd=1.0)
    return irt.fit_explanatory(truth.successes, truth.trials, truth.covariates, prior=prior)


def abilities(world: World, estimator: str) -> irt.Ability:
    a, b = world.parameters()
    sd = float(world.prior.theta_sd)
    theta_sd = sd if np.isfinite(sd) else 1.0
    return irt.ability(
        world.s,
        a,
        b,
        world.c,
        estimator,
        trials=world.k,
        freq=world.freq,
        theta_sd=theta_sd,  # type: ignore
    )


def statistics(world: World) -> irt.FitStatistics:
    a, b = world.parameters()
    theta = 30.0 * world.rng.normal(size=world.s.shape[0])
    return irt.fit_statistics(world.s, theta, a, b, world.c, trials=world.k)


def drift(world: World) -> irt.ResponseDrift:
    _, b = world.parameters()
    labels = world.rng.integers(0, 3, b.size)
    return irt.response_drift(world.s[0], world.k[0], 0.3, 0.1, b, np.abs(b), world.c, groups=labels)


def linked(world: World) -> irt.Link:
    _, b = world.parameters()
    error = world.rng.uniform(0.0, 1.0, b.size) * float(world.prior.gamma_sd if world.x.size else 1.0)
    return irt.link(b, error, b + world.rng.normal(size=b.size), error, groups=np.arange(b.size) % 3)


def probes(world: World) -> np.ndarray:
    a, b = world.parameters()
    bank = irt.ProbeBank(b, a if world.x.size else 1.0, world.c, groups=np.arange(b.size) % 3, top=5)
    theta = world.rng.choice([-1e300, -50.0, 0.3, 50.0])
    chosen = bank.choose(float(theta), min(b.size, 20))
    bank.new_session()
    return np.append(chosen, bank.next(float(theta)))


def counted(world: World) -> np.ndarray:
    k, s = world.k[0], world.s[0]
    bins = (1e18 * np.tanh(world.x.sum(axis=1))).astype(np.int64)
    one = irt.Counts.of(bin=bins, successes=s, trials=k)
    assert irt.Counts.from_dict(irt.Counts.merge([one, one]).to_dict()).n_items == 2 * k.size
    return one.freq


def simulated(world: World) -> np.ndarray:
    truth = irt.simulate(
        *world.s.shape, "3pl", trials=int(world.k.max() + 1), missing=0.2, theta_sd=10.0, guess=world.c
    )
    return truth.successes


def curves(world: World) -> np.ndarray:
    a, b = world.parameters()
    theta = 100.0 * world.rng.normal(size=world.s.shape[0])
    return np.stack([irt.probability(theta, a, b, world.c), irt.information(theta, a, b, world.c)])


FUNCTIONS: dict[str, Callable[[World], Any]] = {
    "fit_explanatory": explanatory,
    "fit_stages": lambda w: irt.fit_stages(w.s, w.k, w.x, w.c, freq=w.freq, prior=w.prior),
    "posterior_difficulty": lambda w: irt.posterior_difficulty(small(w), w.s, w.k, w.x, w.c),
    "group_abilities": lambda w: irt.group_abilities(
        small(w), w.s, w.k, w.x, np.arange(w.s.shape[1]) % 7, w.c, freq=w.freq
    ),
    "fit_persons": lambda w: irt.fit_persons(w.s, w.k, w.w, freq=w.rows, prior=w.prior),
    "fit_lltm": lambda w: irt.fit_lltm(w.s, w.x, w.rows, trials=w.k),
    "fit_statistics": statistics,
    "response_drift": drift,
    "link": linked,
    "ProbeBank": probes,
    "Counts": counted,
    "simulate": simulated,
    "probability": curves,
}
FUNCTIONS |= {
    f"ability {name}": lambda w, name=name: abilities(w, name) for name in ("ml", "map", "eap", "wle")
}
FUNCTIONS |= {
    f"fit {name}": lambda w, name=name: irt.fit(w.s, name, w.rows, w.c, trials=w.k)
    for name in ("rasch", "1pl", "2pl", "3pl")
}
FUNCTIONS["fit cml"] = lambda w: irt.fit(w.responses, "rasch", w.rows, estimator="cml")
# By design: what a fit does not estimate, and respondents or items without responses.
MAY_BE_NAN = {"sigma_se", "covariance", "theta_sd", "se_theta_sd", "items", "respondents"}


def check(name: str, found: Any) -> None:
    """Every number is finite, or a flag says why not."""
    if not dataclasses.is_dataclass(found):
        values = found if isinstance(found, tuple) else (found,)
        assert all(np.isfinite(value).all() for value in values), name
        return
    flagged = any(getattr(found, "flags", ()))
    for each in dataclasses.fields(found):
        value = getattr(found, each.name)
        if isinstance(value, float | np.ndarray) and each.name not in MAY_BE_NAN and not flagged:
            assert np.isfinite(value).all(), f"{name}: {each.name} is not finite, and no flag says so"


def told(error: ValueError) -> bool:
    """Whether a check of ours refused the input, in a sentence, and not numpy or scipy on the way."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return "zpd_ray" in last and str(error).endswith(".") and len(str(error)) > 30


class Peak:
    """The most memory that was taken since it was made, in bytes.

    Of the process where Linux tells it: tracing every allocation took longer than most of what was traced.
    """

    def __init__(self) -> None:
        self.traced = not Path("/proc/self/clear_refs").exists()
        if self.traced:
            tracemalloc.start()
            return
        Path("/proc/self/clear_refs").write_text("5")  # the highest resident size so far is that of now
        self.before = _resident("VmRSS")

    def stop(self) -> int:
        if not self.traced:
            return _resident("VmHWM") - self.before
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def assert_bounded(name: str, world: World) -> None:
    """Assert that an answer comes in time and memory and says what it lacks, or that a sentence refuses."""
    peak = Peak()
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check(name, FUNCTIONS[name](world))
    except ValueError as error:
        if not told(error):
            raise
    finally:
        seconds, most = time.process_time() - started, peak.stop()
    assert seconds < SLACK * SECONDS, f"{name} took {seconds:.1f} s"
    assert most < BYTES, f"{name} took {most / 1e6:.0f} MB"


SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=3
)


@pytest.mark.parametrize("name", list(FUNCTIONS))
@settings(SETTINGS, derandomize=True)
@given(draw=st.fixed_dictionaries(WORLD | SMALL))
def test_small_input_gets_an_answer_or_a_sentence(name: str, draw: dict[str, Any]) -> None:
    assert_bounded(name, build(draw))


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(FUNCTIONS))
@settings(SETTINGS, max_examples=40)
@given(draw=st.fixed_dictionaries(WORLD))
def test_any_input_gets_an_answer_in_time_and_memory_or_a_sentence(name: str, draw: dict[str, Any]) -> None:
    assert_bounded(name, build(draw))


@pytest.mark.nightly
def test_stages_of_which_no_fit_has_a_maximum_are_flagged() -> None:
    """As the long form has found them: all or nothing in 300 rollouts, a floor of .99 and nearly no prior."""
    wide = {"theta_sd": 1e6, "gamma_sd": np.inf, "sigma_median": 50.0, "sigma_log_sd": 1.0}
    drawn = {"respondents": 1, "items": 300, "rollouts": 300, "answers": "all or nothing", "missing": 0.0}
    world = build(drawn | wide | {"covariates": 2, "unit": 1e-8, "floor": "high", "freq": "zeros", "seed": 2})
    assert_bounded("fit_stages", world)
    assert "not_converged" in FUNCTIONS["fit_stages"](world).flags
