"""Which package imports which, and what stays out of a process that does not need it."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import zpd_ray

PACKAGE = Path(zpd_ray.__file__).parent
HEAVY = {"torch", "ray", "vllm", "transformers", "peft", "datasets"}
MIDDLE = {
    "ability",
    "curriculum",
    "engines",
    "graders",
    "readers",
    "selection",
    "training",
    "irt",
    "difficulty",
    "drift",
    "grouping",
    "matching",
    "movement",
    "judging",
    "calibration",
    "compare",
    "machine",
    "measures",
    "rundir",
    "report",
    "export",
    "plan",
    "preview",
    "notes",
    "opening",
    "starter",
    "tracking",
}
BOTTOM = {
    "at_work",
    "schema",
    "config",
    "config_file",
    "errors",
    "hashing",
    "plain",
    "ray_folder",
    "registry",
    "stopping",
    "terminal",
    "uris",
    "user_code",
}
NO_RAY = (
    "rundir",
    "measures",
    "selection",
    "report",
    "report.items",
    "report.live.watching",
    "export",
    "export.exporting",
    "compare.writing",
    "compare.file",
    "plan.show",
    "tracking.telling",
)
HELP = """
import sys
sys.argv = ["zpd-ray", "--help"]
from zpd_ray.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
"""


def modules_after(code: str) -> set[str]:
    """Top-level modules that a clean process holds after ``code``."""
    told = (
        f"{code}\nimport sys; sys.stderr.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("code", ["import zpd_ray", HELP], ids=["import", "help"])
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    assert not HEAVY & modules_after(code)


def test_what_is_computed_with_numpy_alone_imports_no_torch_and_no_ray() -> None:
    names = (
        "irt",
        "difficulty",
        "matching",
        "selection",
        "calibration",
        "config_file",
        "curriculum",
        "graders",
    )
    loaded = modules_after("; ".join(f"import zpd_ray.{name}" for name in names))
    assert not HEAVY & loaded
    assert "scipy" in loaded


@pytest.mark.parametrize("name", NO_RAY)
def test_a_room_without_ray_works_without_it(name: str) -> None:
    assert not {"ray", "torch", "vllm"} & modules_after(f"import zpd_ray.{name}")


def test_engines_and_training_import_no_ray() -> None:
    names = ("engines.network", "engines.transformers", "training.model", "readers.formats")
    assert "ray" not in modules_after("; ".join(f"import zpd_ray.{name}" for name in names))


def test_a_training_job_is_begun_without_the_packages_of_models() -> None:
    """Ray Train's controller imports the workers' end of it, and never has a model: seconds of a core."""
    assert not {"transformers", "peft"} & modules_after("import zpd_ray.pipeline.train.job")


@pytest.mark.parametrize("code", ["import zpd_ray", HELP], ids=["import", "help"])
def test_start_takes_less_than_half_a_second(code: str) -> None:
    """Best of several: the machine may be busy with something else."""
    took = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
        took.append(time.perf_counter() - started)
        if len(took) >= 3 and min(took) < 0.5:
            break
    print(f"best of {len(took)}: {min(took):.3f} s")
    assert min(took) < 0.5


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, inside functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit(name: str) -> str:
    """zpd_ray.irt.models -> irt; zpd_ray itself, and a name that it defines -> ''."""
    part = [*name.split("."), ""][1]
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file() else ""


def graph() -> dict[str, set[str]]:
    """Sub-packages and top-level modules, each with those that it imports."""
    edges: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        own = unit("zpd_ray." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        used = {unit(name) for name in imports(path) if name.partition(".")[0] == "zpd_ray"}
        edges.setdefault(own, set()).update(used - {own, ""})
    return edges


def test_the_graph_sees_what_is_there() -> None:
    edges = graph()
    assert {"cli", "pipeline"} <= edges.keys()
    assert edges.keys() >= MIDDLE | BOTTOM
    assert "pipeline" in edges["cli"]
    assert {"engines", "selection", "calibration"} <= edges["pipeline"]


def test_imports_go_one_way() -> None:
    edges = graph()
    for name in MIDDLE:
        assert edges[name] <= MIDDLE | BOTTOM, name
    for name in BOTTOM:
        assert edges[name] <= BOTTOM, name
    assert edges["pipeline"] <= MIDDLE | BOTTOM
    assert edges["irt"] == set()
    assert [name for name, used in edges.items() if "cli" in used] == ["__main__"]


def test_no_two_packages_import_each_other() -> None:
    assert list(TopologicalSorter(graph()).static_order())  # CycleError names the cycle


def test_ray_is_imported_by_the_pipeline_alone() -> None:
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "ray" in {name.partition(".")[0] for name in imports(path)}
    }
    assert users == {"pipeline"}


@pytest.mark.parametrize("name", ["irt", "difficulty", "matching", "selection", "calibration", "graders"])
def test_no_torch_where_numpy_does(name: str) -> None:
    own = PACKAGE / name
    files = own.rglob("*.py") if own.is_dir() else [own.with_suffix(".py")]
    for path in files:
        assert not HEAVY & {used.partition(".")[0] for used in imports(path)}, path
