"""The plan for people: one screen, in the words of the closing table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.table import Table

from zpd_ray.plan.estimate import Plan, ScopePlan, Source, StageCost
from zpd_ray.plan.rates import Memory, Seconds
from zpd_ray.plan.room import Room
from zpd_ray.terminal import results

GROUPS = 5  # that are named
COLUMNS = ("scope", "stage", "items", "read", "generated", "trained", "selecting", "training", "ratio")
LARGE = ((10**9, "G"), (10**6, "M"), (10**3, "k"))  # where there are ten of them or more


def draw(plan: Plan) -> None:
    """Table, whole duration, memory and room; the table fits a terminal of 80 columns."""
    table = Table(title=f"plan: {plan.method}", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column)
    for scope in plan.scopes:
        for cells in _rows(scope):
            table.add_row(*cells)
    results.print(table)
    for line in lines(plan):
        results.print(line, highlight=False, soft_wrap=True)


def lines(plan: Plan) -> Iterator[str]:
    """What stands below the table."""
    yield "items measured, tokens read, generated and trained; seconds of stages after the first: of each"
    yield _source("pool", plan.pool) + f"; {plan.budget:,} items a stage"
    if plan.evaluation.items:
        yield _source("evaluation", plan.evaluation)
    for scope in plan.scopes:
        asked = " (what this config asks for)" if scope.scope == plan.scope else ""
        yield f"whole run, {scope.scope}: {_time(scope.whole)}{asked}; {_spent(scope.total)}"
    parts = {**plan.before, "the base model": plan.base, "ending": plan.after}
    yield "of it: " + ", ".join(f"{what} {_time(took)}" for what, took in parts.items() if took.seconds)
    yield f"memory at the peak: scoring actor {_memory(plan.actor)}, train worker {_memory(plan.worker)}"
    yield from _room(plan.room)
    for warning in plan.warnings:
        yield f"warning: {warning}"
    yield f"timed on {plan.sample}; +- is one standard error"


def _spent(total: StageCost) -> str:
    """Time with its error, and hours of GPUs, or of CPUs where no GPU is asked for."""
    hours, unit = (total.selecting_gpu_hours, total.training_gpu_hours), "GPU-hours"
    if not any(hours):
        hours, unit = (total.selecting_cpu_hours, total.training_cpu_hours), "CPU-hours"
    times = (("selecting", total.selecting), ("training", total.training))
    told = (f"{what} {_time(took)}, {h:.2g} {unit}" for (what, took), h in zip(times, hours, strict=True))
    return "; ".join(told)


def _rows(scope: ScopePlan) -> Iterator[tuple[str, ...]]:
    """The first stage, those after it (which are alike), and all."""
    stages = scope.stages
    yield (scope.scope, "0", *_cells(stages[0]))
    if len(stages) > 1:
        last = len(stages) - 1
        yield ("", "1" if last == 1 else f"1-{last}", *_cells(stages[1]))
        yield ("", "all", *_cells(scope.total))


def _cells(cost: StageCost) -> Iterator[str]:
    for count in (cost.measured, cost.read, cost.generated, cost.trained):
        yield _count(count)
    for took in (cost.selecting, cost.training):
        yield _time(Seconds(took.seconds))
    yield "-" if cost.ratio is None else f"{cost.ratio:.2g}"


def _count(count: int) -> str:
    """Five digits at most."""
    size, letter = next(((size, letter) for size, letter in LARGE if count >= 10 * size), (1, ""))
    return f"{count / size:,.{1 if size > 1 and count < 100 * size else 0}f}{letter}"


def _time(took: Seconds) -> str:
    """Seconds, minutes or hours, with the standard error where there is one."""
    units = ((3600, "h"), (60, "min"), (1, "s"))
    unit, name = next((size, name) for size, name in units if took.seconds >= 2 * size or size == 1)
    error = f" +- {took.se / unit:.1f}" if took.se else ""
    return f"{took.seconds / unit:.1f}{error} {name}"


def _source(name: str, source: Source) -> str:
    about = "about " if source.items_se else ""
    told = f"{name}: {about}{source.items:,} items, {source.tokens:,} tokens ({source.told})"
    if len(source.groups) < 2:
        return told
    order = sorted(source.groups.items(), key=lambda pair: (-pair[1].tokens, pair[0]))
    groups = ", ".join(f"{group or 'no group'} {size.tokens:,}" for group, size in order[:GROUPS])
    return f"{told}: {groups}" + (f" and {len(order) - GROUPS} more" if len(order) > GROUPS else "")


def _memory(memory: Memory) -> str:
    told = f"{memory.main:.2g} GiB"
    return told + (f" and {memory.gpu:.2g} of {memory.gpu_has:.2g} GiB of its GPU" if memory.gpu_has else "")


def _room(room: Room) -> Iterator[str]:
    for placed in room.nodes:
        if placed.actors or placed.workers:
            node = placed.node
            yield (
                f"{node.name}: {placed.actors} scoring actors, {placed.workers} train workers"
                f"{'' if room.beside else ' in turns'}; {placed.needed:.2g} of {node.memory:.2g} GiB, "
                f"{node.cpus:g} CPUs, {node.gpus:g} GPUs"
            )
    for problem in room.problems:
        yield f"does not fit: {problem}"
    if room.fits:
        yield "it fits"
