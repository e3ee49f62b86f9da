"""The runs that a comparison is made of, and which of them can be made now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import product

from zpd_ray import selection
from zpd_ray.compare.cells import Cell, Values
from zpd_ray.compare.configs import Configs
from zpd_ray.compare.cost import added_training
from zpd_ray.compare.file import ALL, REFERENCE, Comparison, Contender
from zpd_ray.compare.outcomes import last_outcome, worth
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.layout import EVALUATE

Row = tuple[str, float]  # of the table: a method's name, a budget


class Plan:
    """A comparison's rows and runs. Configs are made once, finished runs looked into once."""

    def __init__(self, comparison: Comparison, configs: Configs) -> None:
        """Nothing is read before it is asked for."""
        self.comparison, self.configs = comparison, configs
        self._runs: dict[Cell, Run] = {}
        self._finished: dict[Cell, Run] = {}
        self._worth: dict[Cell, tuple[float, float]] = {}

    @cached_property
    def contenders(self) -> dict[str, Contender]:
        """By name: random first; last random with a method's cost added, where that is asked."""
        given = {each.name: each for each in self.comparison.contenders}
        if self.cost_of is None:
            return given
        return given | {self.with_cost: Contender(name=self.with_cost, method=REFERENCE)}

    @cached_property
    def cost_of(self) -> str | None:
        """The method whose cost is added to random; None: there is no such row."""
        if self.comparison.cost_of is not None:
            return self.comparison.cost_of or None
        if self.configs.values.get("train", {}).get("target") == "own":
            return None  # random needs the model's responses, too, and spends as much
        looking = (c.name for c in self.comparison.contenders if not selection.is_blind(c.selects_by))
        return next(looking, None)

    @property
    def with_cost(self) -> str:
        """Name of that row."""
        return f"{REFERENCE} + cost of {self.cost_of}"

    @cached_property
    def rows(self) -> list[Row]:
        """Each method with each of its budgets; the one that takes everything has no other than that."""
        return [
            (name, budget)
            for name, each in self.contenders.items()
            for budget in ([1.0] if each.selects_by == ALL else self.comparison.budgets)
        ]

    @cached_property
    def combinations(self) -> list[Values]:
        """What is tried; the one of no values where nothing is tuned."""
        tune = self.comparison.tune
        return [tuple(zip(tune, values, strict=True)) for values in product(*tune.values())]

    @property
    def tuned_share(self) -> float:
        """Of the evaluation set: what the table does not use."""
        return self.comparison.tune_share if self.comparison.tune else 0.0

    @property
    def total(self) -> int:
        """Number of all runs, trials included."""
        first = self.combinations[0]
        return sum(len({*self.trials(row), *self.of_table(row, first)}) for row in self.rows)

    @property
    def done(self) -> int:
        """Number of those that have ended."""
        cells = {cell for row in self.rows for cell in self._known_cells(row)}
        return sum(self.finished(cell) is not None for cell in cells)

    def _known_cells(self, row: Row) -> list[Cell]:
        values = self.best(row)
        return [*self.trials(row), *(self.of_table(row, values) if values is not None else ())]

    def trials(self, row: Row) -> list[Cell]:
        """Runs by which a row's values are found; none where nothing is tuned."""
        seed, tuned = self.comparison.trial_seed, bool(self.comparison.tune)
        return [Cell(*row, seed, values) for values in self.combinations] if tuned else []

    def of_table(self, row: Row, values: Values) -> list[Cell]:
        """Runs of a row."""
        return [Cell(*row, seed, values) for seed in self.comparison.seeds]

    def best(self, row: Row, failed: Collection[Cell] = ()) -> Values | None:
        """The values whose trial was the best; None while trials are to be made, or where all have failed."""
        trials = self.trials(row)
        if not trials:
            return self.combinations[0]
        done = {cell: run for cell in trials if (run := self.finished(cell)) is not None}
        if not done or any(cell not in done and cell not in failed for cell in trials):
            return None
        for cell in done.keys() - self._worth.keys():
            self._worth[cell] = worth(last_outcome(done[cell], self.tuned_share))
        return max(done, key=lambda cell: self._worth[cell]).values

    def open_cells(self, failed: Collection[Cell] = ()) -> Iterator[Cell]:
        """Runs that are not finished, have not ``failed`` and can be made now: seed by seed, trials first."""
        for row in self.rows:
            yield from (cell for cell in self.trials(row) if self._is_open(cell, failed))
        chosen = {row: self.best(row, failed) for row in self.rows}
        for seed in self.comparison.seeds:
            for row, values in chosen.items():
                if values is not None and self._is_open(cell := Cell(*row, seed, values), failed):
                    yield cell

    def _is_open(self, cell: Cell, failed: Collection[Cell]) -> bool:
        return cell not in failed and self.finished(cell) is None and self.run_of(cell) is not None

    def finished(self, cell: Cell) -> Run | None:
        """A run that has ended; None for another."""
        if cell not in self._finished:
            run = self.run_of(cell)
            if run is None or not run.finished(run.config.stages - 1, EVALUATE):
                return None
            self._finished[cell] = run
        return self._finished[cell]

    def run_of(self, cell: Cell) -> Run | None:
        """The run of a cell, there or not; None while its config hangs on another run that is not."""
        if cell not in self._runs:
            training = None
            if cell.method == self.with_cost:
                paid = self._paid(cell)
                if paid is None:
                    return None
                training = added_training(paid)
            config = self.configs.of(cell, self.contenders[cell.method], training)
            self._runs[cell] = Run(config, Store(config.output))
        return self._runs[cell]

    def _paid(self, cell: Cell) -> Run | None:
        """The run of the other method whose cost a run of random is trained for, of the same budget and seed.

        All trials of a budget are trained for the cost of the other method's first one.
        """
        row = (str(self.cost_of), cell.budget)
        trials = self.trials(row)
        if trials and cell.seed == self.comparison.trial_seed:
            return self.finished(trials[0])
        values = self.best(row)
        return None if values is None else self.finished(Cell(*row, cell.seed, values))

    def stage0_of(self, run: Run) -> tuple[Run, Run]:
        """The runs that measure stage 0 for a run: the answers, and (maybe the same) all that it needs."""
        configs = (self.configs.stage0(run.config, whole) for whole in (False, True))
        answers, whole = (Run(config, Store(config.output)) for config in configs)
        return answers, whole
