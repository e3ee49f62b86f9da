"""What a reader must know before the plots, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from zpd_ray.calibration import Fit
from zpd_ray.irt.flags import FLAGS
from zpd_ray.measures import UNPARSED_TOLD
from zpd_ray.report.page.tally import Tally
from zpd_ray.rundir import Run
from zpd_ray.rundir.layout import ANSWERS, EVALUATE, MEASURE, POOL, SELECT, StageFiles
from zpd_ray.rundir.records import load_closing, load_events, load_metrics, load_selection


def warnings(run: Run, tallies: list[Tally]) -> list[str]:
    """Sentences, those of the run as a whole first; none where nothing is to be told."""
    found = [*_of_the_run(run)]
    for tally in tallies:
        stage = tally.fit.stage
        told = [*_of_measuring(run, stage), *_of_the_fit(run, tally.fit), *_of_selecting(run, stage)]
        told += _of_evaluating(run, stage)
        found += [f"Stage {stage}: {sentence}." for sentence in dict.fromkeys(told)]
    return found


def _of_the_run(run: Run) -> Iterator[str]:
    open_stages = [t for t in range(run.config.stages) if not run.finished(t, EVALUATE)]
    if open_stages:
        told = f"stage {open_stages[0]} and what follows it" if len(open_stages) > 1 else "the last stage"
        yield f"The run is not finished: {told} is still open; the page shows what there is."
    for event in load_events(run.store):
        if event.step == "config changed":
            yield f"The config was changed when the run was resumed: {'; '.join(event.details['changed'])}."
    pool = run.store.read_json(f"{POOL}.json")
    bad = pool["quarantined"]
    if bad:
        told = ", ".join(f"{count} x {reason}" for reason, count in bad.items())
        total = sum(bad.values())
        yield f"{total} of {pool['rows']} rows of the pool were left out ({told}): see quarantine/."


def _of_measuring(run: Run, stage: int) -> Iterator[str]:
    counted = Counter(load_closing(run.store, stage, MEASURE)[ANSWERS])  # 0 of what no grader asked for
    if counted["failed"]:
        yield f"{counted['failed']:,} of {counted['items']:,} items could not be measured"
    unparsed, responses = counted["unparsed"], counted["responses"]
    share = unparsed / max(1, responses)
    if share > UNPARSED_TOLD:
        what = "most" if share > 0.5 else "many"
        yield (
            f"the grader found no answer in {what} responses ({unparsed:,} of {responses:,}, "
            f"{share:.0%}); they count as wrong"
        )


def _of_the_fit(run: Run, fit: Fit) -> Iterator[str]:
    for part in fit.probed.drifted if fit.probed else ():
        yield f"{part.told}"
    for flag in fit.told_flags(run.config.prompts_alone):
        yield FLAGS.get(flag, flag)
    if fit.n_right in (0, fit.n_responses):
        yield f"all responses are {'wrong' if fit.n_right == 0 else 'right'}: nothing shows where the zone is"


def _of_selecting(run: Run, stage: int) -> Iterator[str]:
    if not run.finished(stage, SELECT):
        return
    chosen = load_selection(run.store, StageFiles(stage).selection())
    if chosen.zone and chosen.outside_zone == chosen.zone:
        yield "nothing that was selected is in the zone: what the pool has left is too hard or too easy"
    yield from chosen.warnings
    if run.adopted(stage):
        yield "its model was trained elsewhere"


def _of_evaluating(run: Run, stage: int) -> Iterator[str]:
    if not run.finished(stage, EVALUATE):
        return
    now, before = load_metrics(run.store, stage), load_metrics(run.store, stage - 1 if stage else None)
    if now.accuracy is not None and before.accuracy is not None and now.accuracy < before.accuracy:
        yield (
            f"accuracy fell from {before.accuracy:.3f} to {now.accuracy:.3f}, of {now.items} items: a lower "
            "train.learning_rate, or more select.replay, may keep what was known"
        )
    if now.items and (now.unparsed or 0) > UNPARSED_TOLD * now.items:
        yield f"the grader found no answer in {now.unparsed} of {now.items} responses of the evaluation set"
