"""The command line ``zpd-ray``: options and messages, no logic."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from zpd_ray import __version__
from zpd_ray.cli import compare as cli_compare
from zpd_ray.cli import jobs as cli_jobs
from zpd_ray.cli import plan as cli_plan
from zpd_ray.cli import report as cli_report
from zpd_ray.cli import takeaway as cli_takeaway
from zpd_ray.cli import watch as cli_watch
from zpd_ray.cli.interrupts import ended_by_signals
from zpd_ray.cli.options import ConfigFile, Json, Overrides, Quiet, before_ray, exit_code

EXIT_CODES = (
    "0 done, 1 a fault of zpd-ray itself (with a traceback), 2 something to mend (a sentence says what), "
    "130 ended by Ctrl-C, 143 ended by SIGTERM; after these two the same command resumes"
)

app = typer.Typer(
    name="zpd-ray",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Pick the training samples that teach this model most, stage by stage: measure how hard each sample "
    "is for the model, estimate the model's ability, train on what lies in between, measure again.",
    epilog=f"Exit codes: {EXIT_CODES}.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")
    ] = False,
) -> None:
    pass


@app.command()
def run(config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False) -> None:
    """All stages, from the pool of samples to the tuned adapter. Running it again resumes.

    Example: `zpd-ray run examples/quickstart/run.toml --set select.budget.fraction=0.05`
    """
    _step("run", config, overrides)


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="file, glob, directory or URI of your samples")],
    config: Annotated[Path, typer.Argument(help="the config to write", metavar="RUN.TOML")] = Path(
        "run.toml"
    ),
    model: Annotated[str, typer.Option(help="directory or hub id of the base model")] = "path/to/model",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Look at your data and write a commented config for it.

    Example: `zpd-ray init data/pool.jsonl --model models/base`, then `zpd-ray check run.toml`
    """

    def work() -> None:
        from zpd_ray.errors import ZpdError
        from zpd_ray.starter import starter
        from zpd_ray.terminal import alive, show

        if config.exists():
            raise ZpdError(
                f"{config} is there already; give another name, as in `zpd-ray init {data} new.toml`"
            )
        with alive("reading"):
            text, shape = starter(data, model, str(config))
        try:
            config.write_text(text, encoding="utf-8")
        except OSError as problem:
            raise ZpdError(f"cannot write {config}: {problem}; give another place") from None
        show({"config": str(config), "shape": shape}, lambda _: _told(config, shape))

    sys.exit(exit_code(work))


def _told(config: Path, shape: str) -> None:
    typer.echo(f"wrote {config}: rows of the shape {shape}; see what the model would read with")
    typer.echo(f"  zpd-ray check {config}")


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False) -> None:
    """Show what the rows are taken for, the prompts as the model reads them, and what would be left out.

    Checks all that can be checked before a run, reads the first rows of each source, and writes nothing.

    Example: `zpd-ray check run.toml --set model.path=models/base`
    """

    def work() -> None:
        from zpd_ray.terminal import alive, show

        with alive("checking"):
            from zpd_ray.config_file import load_config
            from zpd_ray.opening import check as check_config
            from zpd_ray.preview import look, told

            run, _ = check_config(load_config(str(config), overrides or ()))
            looked = look(run.config)
        show(looked, lambda found: typer.echo("\n".join(told(found))))

    sys.exit(exit_code(work))


@app.command()
def ingest(config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False) -> None:
    """Read, check and de-duplicate the pool and the evaluation set; bad rows go to quarantine.

    Example: `zpd-ray ingest run.toml --set pool.max_bad_share=0.2`
    """
    _step("ingest", config, overrides)


@app.command()
def measure(
    config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False
) -> None:
    """Measure every item of the pool (NLL and responses) with the model of the stage that is next.

    Example: `zpd-ray measure run.toml --set cluster.actors=4`
    """
    _step("measure", config, overrides)


@app.command()
def fit(config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False) -> None:
    """Calibrate difficulties and estimate the model's ability from what was measured.

    Example: `zpd-ray fit run.toml`, then look at `stages/00/fit.json` in the run directory
    """
    _step("fit", config, overrides)


@app.command()
def select(config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False) -> None:
    """Choose the items of the stage: where they lie in the pool, in order of rank, in `stages/NN/selected`.

    Example: `zpd-ray select run.toml`, to train on the selection with a trainer of your own
    """
    _step("select", config, overrides)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    result: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="do not train: take the LoRA adapter on the base model (the whole model where "
            "train.method = 'full') that was trained elsewhere on what a stage has selected",
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train the model of the stage on its selection (Ray Train).

    With `--result my/adapter` the stage gets the model that a trainer of your own has made of it.

    Example: `zpd-ray train run.toml --set cluster.gpus_per_train_worker=1`
    """
    _step("train", config, overrides, result)


@app.command()
def evaluate(
    config: ConfigFile, overrides: Overrides = None, quiet: Quiet = False, json: Json = False
) -> None:
    """Evaluate the model that the stage leaves on the evaluation set; this closes the stage.

    Example: `zpd-ray evaluate run.toml`
    """
    _step("evaluate", config, overrides)


def _step(name: str, path: Path, overrides: list[str] | None, result: Path | None = None) -> None:
    """Import what a command needs only when it runs, so that --help answers at once."""

    def work() -> None:
        before_ray()
        from zpd_ray.terminal import alive

        with alive("starting"):  # before what takes seconds to import
            from zpd_ray.config_file import load_config
            from zpd_ray.opening import open_run

            opened = open_run(load_config(str(path), overrides or ()))  # before Ray and torch are imported
            from zpd_ray.pipeline.commands import carry_out

            carry_out(name, *opened, result)

    with ended_by_signals():
        code = exit_code(work)
    sys.exit(code)


app.add_typer(cli_plan.app)
app.add_typer(cli_compare.app)
app.add_typer(cli_jobs.app)
app.add_typer(cli_report.app)
app.add_typer(cli_takeaway.app)
app.add_typer(cli_watch.app)


def main() -> None:
    """Entry point of the ``zpd-ray`` command."""
    try:
        app(prog_name="zpd-ray")  # also for `python -m zpd_ray`: completion goes by this name
    finally:
        # Python would look through all of Ray and torch for cycles before it ends: seconds of a busy core.
        # With triton it may: its bindings (nanobind) list on the screen what nobody has freed.
        if "triton" not in sys.modules:
            gc.freeze()
