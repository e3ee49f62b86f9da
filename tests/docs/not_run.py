"""Blocks of the docs that no test runs as they stand, and why: by page and first words."""

NOT_RUN = {
    ("tutorial", "python3 -m venv"): "installs; CI does the same by make",
    ("tutorial", "python examples"): "minutes: test_the_tutorial_in_small, nightly",
    ("tutorial", "zpd-ray"): "minutes: test_the_tutorial_in_small, nightly",
    (
        "howto/own-trainer",
        "make quickstart",
    ): "minutes: .ci/run and tests/pipeline/train/test_train.py run both",
    ("howto/own-trainer", "zpd-ray train"): "needs an adapter: tests/pipeline/train/test_adopt.py",
    ("howto/compare", "zpd-ray compare"): "minutes: tests/compare/test_compare.py, nightly",
    ("howto/cluster", "zpd-ray submit"): "needs a cluster: tests/pipeline/jobs",
    ("howto/cluster", "zpd-ray run"): "needs a cluster: tests/pipeline/cluster",
    ("index", "zpd-ray init"): "howto/own-data has the first two, the tutorial the third",
}
# Python that is a piece of something, or works on data that is not there.
PIECES = {
    ("tutorial", "from peft"): "what it loads was made by the blocks before: test_the_tutorial_in_small",
    ("irt", "from zpd_ray import irt"): "responses of nobody: tests/irt",
    ("howto/rl", "from datasets"): "needs a model and prompts: tests/curriculum/test_adapters.py, nightly",
    ("howto/rl", "from verl"): "needs verl: tests/curriculum/test_adapters.py, by its interface",
    ("howto/rl", "from prime_rl"): "needs prime-rl: tests/curriculum/test_adapters.py, by its interface",
    ("howto/own-trainer", "import zpd_ray"): "runs inside of a training job: tests/pipeline/train",
    ("howto/own-trainer", "with stage.checkpoint"): "a piece of such a loop: tests/pipeline/train",
    ("howto/own-trainer", "if step % 20"): "a piece of such a loop: tests/chaos/test_preemption.py",
}
# Needs Ray, hence seconds to minutes: nightly.
WITH_RAY = {"run", "plan", "ingest", "measure", "fit", "select", "train", "evaluate"}


def reason(page: str, text: str) -> str | None:
    """Why a block is not run, or None."""
    found = [
        why for (where, first), why in (NOT_RUN | PIECES).items() if where == page and text.startswith(first)
    ]
    return found[0] if found else None
