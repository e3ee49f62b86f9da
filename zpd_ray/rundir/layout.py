"""Every name in a run directory, and the steps of a stage with the files that prove them finished.

config.toml  manifest.json  events.jsonl  pool.json  evaluation/pool.json
pool/part-000000.parquet ...           items; later tables of a part have the same rows in the same order; in
                                       small row groups, so that single rows cost little to read
evaluation/pool/...
quarantine/{pool/,evaluation/pool/}    bad rows, with reason, file and row
rehearsal.json                         a training step that was tried before anything was measured
base/{evaluation/,metrics.json}        the model before any training
ray_train/                             Ray Train's own: the last checkpoint inside a stage
stages/NN/measurements/MEASURE/...     what was measured of each item, one directory per measure; what was
                                       measured in rounds: some rows of some parts, with the column ``row``
probes.parquet                         not in scope pool: items never trained on, in the order of asking
stages/NN/rounds/RR/{items/,places/,MEASURE/}   items gathered from their parts, where from, what came of it
stages/NN/rounds/RR/{items,fit,round}.json      how many; after probes the fit so far; written last: totals
stages/NN/{measured,fit,selection,train,metrics}.json   written last: they prove their steps
stages/NN/{selected/,chosen/}          where the chosen items lie in the pool, in order of rank; their rows in
                                       each part
bands/                                 of select.diverse.near_duplicates: what each item's text is told by
stages/NN/moved.json                   of select.delta_by = "group": the mean fall of the NLL by group
stages/NN/near/                        likewise: rows of each part that better items nearly repeat
stages/NN/scored/                      sort keys, while items are selected
stages/NN/beside/METHOD/{selected/,chosen/,selection.json}   selections that are not trained on
stages/NN/{adapter/ or model/,trainer/,canary.parquet,evaluation/}
stages/NN/steps.parquet                loss and learning rate of each optimiser step
report.html                            the run as a page, after each stage or by `zpd-ray report`
progress.json                          what the run is at, every few seconds: not the same in two equal runs
tracking.json                          the run's name for trackers, and what each was told: likewise
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from zpd_ray.registry import label

CONFIG, MANIFEST, EVENTS, LOCK = "config.toml", "manifest.json", "events.jsonl", ".zpd-ray.lock"
POOL, EVALUATION = "pool", "evaluation/pool"
BASE = "base"
RAY_TRAIN = "ray_train"
METRICS = "metrics.json"
REHEARSAL = "rehearsal.json"
REPORT = "report.html"
PROGRESS = "progress.json"
TRACKING = "tracking.json"
PROBES = "probes.parquet"
BANDS = "bands"
ANSWERS = "answers"  # the measure that ability stands on

ADOPTED = "adopted"  # key of a train.json: where the stage's model came from, if trained elsewhere

SELECTING, TRAINING = "selecting", "training"


class Step(NamedTuple):
    """A step of a stage: its command, the file that proves it finished, what its time is spent on."""

    name: str
    closes: str
    purpose: str = ""


STEPS = (
    MEASURE := Step("measure", "measured.json", SELECTING),
    FIT := Step("fit", "fit.json", SELECTING),
    SELECT := Step("select", "selection.json", SELECTING),
    TRAIN := Step("train", "train.json", TRAINING),
    EVALUATE := Step("evaluate", METRICS),
)


def in_words(directory: str) -> str:
    """What a directory of the run is about, for people: "stage 0", "the base model"."""
    first, *rest = directory.split("/")
    if first == BASE:
        return "the evaluation set with the base model"
    if first != "stages":
        return directory
    stage = f"stage {int(rest[0])}"
    if rest[1:2] == ["evaluation"]:
        return f"the evaluation set after {stage}"
    if rest[1:2] == ["rounds"]:
        stage += f", round {int(rest[2])}"
        rest = rest[1:]
    measure = rest[2:3]
    return stage if measure in ([], [ANSWERS]) else f"{measure[0]} of {stage}"


@dataclass(frozen=True)
class StageFiles:
    """Names of the files of one stage, relative to the run directory."""

    stage: int

    @property
    def directory(self) -> str:
        """That holds them all."""
        return f"stages/{self.stage:02d}"

    def closing(self, step: Step) -> str:
        """The file whose presence proves the step."""
        return f"{self.directory}/{step.closes}"

    def measurements(self, measure: str = ANSWERS) -> str:
        """Directory of what a measure found, a file per part."""
        return f"{self.directory}/measurements/{label(measure)}"

    @property
    def rounds(self) -> str:
        """Directory of the rounds in which a stage measures, where it does not measure everything."""
        return f"{self.directory}/rounds"

    def round(self, number: int) -> str:
        """Directory of one of them."""
        return f"{self.rounds}/{number:02d}"

    @property
    def evaluation(self) -> str:
        """Directory of the measured evaluation set."""
        return f"{self.directory}/evaluation"

    def selection(self, beside: str | None = None) -> str:
        """Directory of ``selected``, ``chosen`` and selection.json: the stage's own, or a method's beside."""
        return self.directory if beside is None else f"{self.directory}/beside/{label(beside)}"

    @property
    def moved(self) -> str:
        """The mean fall of the NLL by group, where a method asks for it."""
        return f"{self.directory}/moved.json"

    @property
    def selected(self) -> str:
        """Directory of where the items lie that the stage trains on, in order of rank."""
        return f"{self.directory}/selected"

    @property
    def trainer(self) -> str:
        """Directory of the optimiser's state at the end of the stage."""
        return f"{self.directory}/trainer"

    @property
    def steps(self) -> str:
        """Loss and learning rate of each optimiser step; not there for a training loop of the user's."""
        return f"{self.directory}/steps.parquet"

    @property
    def canary(self) -> str:
        """What an engine that loads the stage's result has to measure."""
        return f"{self.directory}/canary.parquet"
