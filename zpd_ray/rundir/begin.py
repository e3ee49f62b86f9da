"""Opening a run directory: new, or an earlier run's."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import version
from pathlib import Path

from zpd_ray import graders, measures
from zpd_ray.config import Config
from zpd_ray.config_file import differences, to_toml, validate
from zpd_ray.engines.model_files import load_tokenizer, max_length, vocabulary_of
from zpd_ray.engines.remote import is_remote
from zpd_ray.engines.tokens import check_turns
from zpd_ray.engines.weights import check_targets, check_weights, matrices
from zpd_ray.errors import ZpdError
from zpd_ray.readers import hub
from zpd_ray.readers.fingerprints import changes_of
from zpd_ray.readers.sources import SourceFile, expand
from zpd_ray.rundir.changes import refused
from zpd_ray.rundir.code import check_code
from zpd_ray.rundir.layout import CONFIG, EVALUATION, LOCK, MANIFEST, POOL
from zpd_ray.rundir.records import add_event
from zpd_ray.rundir.run import Run
from zpd_ray.rundir.store import Store

LAYOUT = 7  # of a run directory; one that is read differently gets another number
PACKAGES = ("zpd-ray", "ray", "torch", "transformers", "peft", "numpy", "scipy", "pyarrow")


def check_run(config: Config) -> Run:
    """The run of a config, after everything that can be checked before work starts; writes nothing.

    Raises ZpdError when the config differs from the one of an earlier attempt, the directory holds something
    else, or an input is not there.
    """
    run = Run(config, Store(config.output))
    if run.store.exists(CONFIG):
        check_layout(run.store)
        _check_same(run)
        _check_sources(run)
    else:
        check_ours(run.store)
        check_inputs(run)
    return run


def recorded_run(root: str) -> Run:
    """The run that a directory (path or URI) holds, with the config that it was made with, to look at.

    Raises ZpdError where there is none, or another version has written it.
    """
    store = Store(root)
    if not store.exists(CONFIG):
        raise ZpdError(
            f"{root} holds no run: it has no {CONFIG}, which is written when the pool has been read; give "
            "the directory or URI that the run's config names as `output`"
        )
    check_layout(store)
    return Run(_recorded(store), store)


def record(run: Run) -> None:
    """Bind the run directory to the config: once the pool is there, so that a refused one can be mended.

    Where the run was begun with other values of keys that may change, it is bound to these.
    """
    if not run.store.exists(CONFIG):
        run.store.write_json(MANIFEST, _manifest(run.config))
    elif changed := differences(_recorded(run.store), run.config):
        add_event(run.store, "config changed", None, changed=changed)
    else:
        return
    run.store.write_bytes(CONFIG, to_toml(run.config).encode())


def check_inputs(run: Run) -> None:
    """Raises ZpdError for names, functions, sources or a model that are not there, or do not go together."""
    config = run.config
    engine = check_code(run)
    for source in filter(None, (config.pool, config.evaluation)):
        for file in expand(source.path, source.format):
            if file.path.startswith(f"{run.store.root}/"):
                raise ZpdError(
                    f"{file.path} lies inside the run directory {run.store.root}, whose files are the "
                    "run's to replace; give an output beside the data"
                )
    if engine.reads_text:
        _check_model(run)


def _check_model(run: Run) -> None:
    """Raises ZpdError when the model cannot be loaded, read with its tokenizer, or trained as asked."""
    config, path = run.config, run.config.model.path
    tokenizer = load_tokenizer(config.model.path)
    check_turns(config, tokenizer, config.model.path)
    limit, vocabulary = max_length(config.model, tokenizer), vocabulary_of(config.model.path)
    if tokenizer.vocab_size > vocabulary:
        raise ZpdError(
            f"the tokenizer in {config.model.path} has {tokenizer.vocab_size} tokens and the model "
            f"{vocabulary}; put the model's own tokenizer beside it"
        )
    how = config.measure
    if graders.load(how.grader).needs_completion and how.max_new_tokens >= limit:
        raise ZpdError(
            f"measure.max_new_tokens = {how.max_new_tokens} leaves no room for a prompt: the model takes "
            f"{limit} tokens of prompt and response; lower it"
        )
    if is_remote(path) or Path(path).is_dir():
        check_weights(path)
        if config.train.method == "lora" and config.train.function is None:
            check_targets(matrices(path), config.train.lora.targets)
    _check_other_models(run)


def _check_other_models(run: Run) -> None:
    """Raises ZpdError when a measure asks a model that is not there."""
    own = run.model(0)
    for name in run.measures:
        base = measures.load(name, run.config).model(own).base
        if base == own.base:
            continue
        try:
            check_turns(run.config, load_tokenizer(base), base)
            if is_remote(base) or Path(base).is_dir():
                check_weights(base)
        except ZpdError as problem:
            raise ZpdError(f"the measure {name} asks a model that cannot be loaded: {problem}") from None


def check_ours(store: Store) -> None:
    """A run empties directories of its own name: not in a directory with somebody's files."""
    found = store.entries("")
    if found and LOCK not in found:
        raise ZpdError(
            f"the output directory {store.root} is not empty and holds no run (found "
            f"{', '.join(found[:5])}); give a new or an empty directory"
        )


def check_layout(store: Store) -> None:
    """Raises ZpdError when another version has written a run into the directory."""
    written = store.read_json(MANIFEST).get("layout", 1) if store.exists(MANIFEST) else 1
    if written != LAYOUT:
        raise ZpdError(
            f"the run directory {store.root} was written by another version of zpd-ray (layout {written}, "
            f"this one reads layout {LAYOUT}); finish it with that version, or give another output"
        )


def _check_same(run: Run) -> None:
    before = _recorded(run.store)
    other = refused(run, before)
    if other:
        raise ZpdError(
            f"the run directory {run.store.root} belongs to another config: {'; '.join(other)}; take these "
            "back to resume it, or give another output"
        )
    if differences(before, run.config) and check_code(run).reads_text:
        _check_model(run)


def _recorded(store: Store) -> Config:
    return validate(tomllib.loads(store.read_bytes(CONFIG).decode()))


def _check_sources(run: Run) -> None:
    """The files of pool and evaluation set are those that the run has read; they may be gone.

    What the hub has now of a dataset does not matter: the run has read a commit, which does not change.
    """
    for section, items in ((run.config.pool, POOL), (run.config.evaluation, EVALUATION)):
        if section is None or not run.store.exists(f"{items}.json"):
            continue
        paths = [path for path in section.paths if not hub.is_dataset(path)]
        files = [file for path in paths for file in _still_there(path, section.format)]
        told = changes_of(files, run.store.read_json(f"{items}.json")["sources"])
        if told:
            raise ZpdError(
                f"{told} since the run in {run.store.root} read its data; put it back as it was to resume, "
                "or give another output to begin anew"
            )


def _still_there(path: str, format: str) -> list[SourceFile]:
    """Files of one path; none where it is gone, which does no harm: the run has a copy of its own."""
    try:
        return expand(path, format)
    except ZpdError:
        return []


def _manifest(config: Config) -> dict[str, object]:
    versions = {package: version(package) for package in PACKAGES}
    return {"layout": LAYOUT, "seed": config.seed, "python": platform.python_version(), "versions": versions}
