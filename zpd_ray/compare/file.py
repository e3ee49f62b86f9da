"""The file of a comparison: a run's config, and the methods, budgets and seeds that it is run with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from zpd_ray import selection
from zpd_ray.compare.cells import in_path
from zpd_ray.config import NonEmpty, Section
from zpd_ray.config_file import checked, read_values
from zpd_ray.errors import ZpdError

REFERENCE = "random"  # what every method is held against
ALL = "full"  # trains on everything, whatever the budget
OWN = ("output", "seed", "select.method", "select.budget", "select.beside")  # what the comparison sets
# What may not differ between methods: also what they choose from, begin with, and are judged by.
COMMON = (*OWN, "pool", "evaluation", "model", "cluster", "measure.grader")


def flat(given: Any, prefix: str = "") -> Any:
    """Sections within sections as ``section.key``: ``[tune.train]`` with ``learning_rate``, for one."""
    if not isinstance(given, dict):
        return given  # which is refused by its type
    found: dict[str, Any] = {}
    for key, value in given.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


Keys = Annotated[dict[str, Any], BeforeValidator(flat)]
Trials = Annotated[dict[str, list[Any]], BeforeValidator(flat)]


class Contender(Section):
    """A method of the comparison."""

    name: NonEmpty = Field(description="in the tables")
    method: str = Field("", description="select.method; left out: the name")
    set: Keys = Field(
        default_factory=dict, description='further keys of the run, as { "select.replay" = 0.25 }'
    )

    @property
    def selects_by(self) -> str:
        """select.method."""
        return self.method or self.name


class Comparison(Section):
    """A comparison, whole."""

    run: NonEmpty = Field(description="config of a run: pool, base model, evaluation set, training")
    output: NonEmpty = Field(description="directory or URI; each run is a run directory in it")
    methods: list[Contender] = Field(
        min_length=1, description="names of methods, or tables with name, method and set; random is added"
    )
    budgets: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.01, 0.02, 0.05, 0.10, 0.15],
        min_length=1,
        description="shares of the pool that are selected, over all stages together",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2, 3, 4], min_length=1, description="of the runs")
    set: Keys = Field(default_factory=dict, description="keys of every run, over those of its file")
    tune: Trials = Field(
        default_factory=dict,
        description='key = values to try, as { "train.learning_rate" = [1e-4, 3e-4] }: for each method and '
        "budget all combinations, of which the best goes into the table",
    )
    tune_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="of the trials; left out: one that the table does not use"
    )
    tune_share: float = Field(
        0.3, gt=0, lt=1, description="of the evaluation set: what trials are judged by, and the table is not"
    )
    cost_of: str | None = Field(
        None,
        description="name of a method: a further row is random, trained on as many more tokens as this one "
        "reads to select; left out: the first that selects by what is measured (none with train.target = "
        "'own', for which random measures as much); '': no such row",
    )
    truth: str | None = Field(
        None, description="a column of the pool that says what an item is, and that no run reads"
    )

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_enough(cls, given: Any) -> Any:
        named = isinstance(given, list)
        return [{"name": each} if isinstance(each, str) else each for each in given] if named else given

    @model_validator(mode="after")
    def _each_once(self) -> Comparison:
        for what, listed in (
            ("methods", [in_path(each.name) for each in self.methods]),
            ("budgets", self.budgets),
            ("seeds", self.seeds),
        ):
            twice = [each for each, count in Counter(listed).items() if count > 1]
            if twice:
                raise ValueError(
                    f"{what} has {twice[0]!r} twice, and both would be the same runs; take one out, or give "
                    "another name to what is set otherwise"
                )
        return self

    @model_validator(mode="after")
    def _values_to_try(self) -> Comparison:
        empty = [key for key, values in self.tune.items() if not values]
        if empty:
            raise ValueError(f"tune.{empty[0]} has no value to try; give some, or take it out")
        return self

    @property
    def trial_seed(self) -> int:
        """The seed of the trials."""
        return max(self.seeds) + 1 if self.tune_seed is None else self.tune_seed

    @property
    def contenders(self) -> list[Contender]:
        """The methods, the reference first."""
        given = [each for each in self.methods if each.name != REFERENCE]
        own = next((each for each in self.methods if each.name == REFERENCE), Contender(name=REFERENCE))
        return [own, *given]


def load_comparison(path: str, overrides: list[str] | None = None) -> Comparison:
    """The comparison in a TOML file; relative paths are taken from the file's directory.

    Raises ZpdError for unknown keys and methods (with the nearest), and for settings that would make the
    methods different in what they choose from or are judged by.
    """
    comparison = checked(Comparison, read_values(path, overrides or ()))
    for each in comparison.contenders:
        selection.load(each.selects_by)
        _check_keys(f"the method {each.name!r}", each.set)
    _check_keys("tune", comparison.tune)
    _check_keys("`set` of the comparison", comparison.set, OWN)
    _check_reference(comparison)
    _check_cost_of(comparison)
    here = Path(path).resolve().parent

    def place(given: str) -> str:
        return given if "://" in given else str((here / Path(given).expanduser()).resolve())

    return comparison.model_copy(update={"run": place(comparison.run), "output": place(comparison.output)})


def _check_keys(who: str, keys: Iterable[str], refused: tuple[str, ...] = COMMON) -> None:
    """Raises ZpdError for a key that methods may not differ in, or that is the comparison's own."""
    for key in keys:
        common = next((each for each in refused if key == each or key.startswith(f"{each}.")), None)
        if common is not None:
            raise ZpdError(
                f"{who} sets {key}, and {common} is the comparison's own, or the same for all methods; "
                "set it for all in the runs' file, or compare in two files (select.method is given as method)"
            )


def _check_reference(comparison: Comparison) -> None:
    reference = comparison.contenders[0]
    if reference.selects_by != REFERENCE:
        raise ZpdError(
            f"the method named {REFERENCE!r} selects by {reference.selects_by!r}, and all are held against a "
            "random selection under that name; give it another name"
        )


def _check_cost_of(comparison: Comparison) -> None:
    names = [each.name for each in comparison.contenders if not selection.is_blind(each.selects_by)]
    if comparison.cost_of and comparison.cost_of not in names:
        raise ZpdError(
            f"cost_of = {comparison.cost_of!r} is no method here that selects by what is measured; expected "
            f"one of {', '.join(names) or 'none: there is no such method'}, or '' for no such row"
        )
