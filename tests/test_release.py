"""What is released: one version, whole metadata, every file that a run reads, and types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from email.message import Message
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_api import MODULES
from zpd_ray import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
SECONDS = 900  # for a machine that is shared
# The parts in CONTRIBUTING.md, and some of ours, are what the protocols ask for.
CONFORM = """
from compressor import Compressor
from distinct import Distinct
from lines import write
from overlap import words
from varied import Varied
from zpd_ray import config, engines, export, graders, measures, selection
from zpd_ray.export.parquet import Parquet
from zpd_ray.graders.exact import Exact
method: selection.Method = Varied()
measure: type[measures.Measure] = Distinct
grader: graders.Grader = Exact()
format: export.Format = Parquet()
def engine(config: config.Config, model: engines.ModelRef) -> engines.Engine:
    return Compressor(config, model)
"""


def package_files() -> set[str]:
    """Files of the package in this directory, relative to it."""
    found = {path.relative_to(ROOT) for path in (ROOT / "zpd_ray").rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


# --- what is written down ---


def test_the_version_is_written_once_and_elsewhere_the_same() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "zpd_ray.__version__"}
    assert CITATION["version"] == __version__
    assert (
        re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__
    )  # type: ignore[index]
    files = [path for path in (ROOT / "cluster").rglob("*") if path.is_file()]
    tags = [tag for path in files for tag in re.findall(r"/zpd-ray:([\d.]+)-ray", path.read_text())]
    assert len(tags) >= 5
    assert set(tags) == {__version__}


def test_every_file_of_the_package_is_in_the_wheel_by_the_configuration() -> None:
    """Cheap; the build below looks at a wheel."""
    data = PROJECT["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{each}" for package, globs in data.items() for each in globs]
    others = {name for name in package_files() if not name.endswith(".py")}
    assert "zpd_ray/py.typed" in others
    assert {name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)} == set()
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in others)] == []


def test_every_directory_with_code_is_a_package() -> None:
    """setuptools leaves out what has no __init__.py."""
    directories = {(ROOT / name).parent for name in package_files() if name.endswith(".py")}
    assert [path for path in directories if not (path / "__init__.py").exists()] == []


def test_the_citation_has_what_its_format_requires() -> None:
    """Of version 1.2.0: these keys, authors with a name, references with type, title and authors."""
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    assert CITATION["license"] == PROJECT["project"]["license"]
    names = [author["name"] for author in CITATION["authors"]]
    assert names == [author["name"] for author in PROJECT["project"]["authors"]]
    (paper,) = CITATION["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])
    assert paper["url"] == "https://arxiv.org/abs/2601.10986"


# --- what is built ---


def command(*arguments: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Its output is in the error where it fails. PYTHONPATH may hold this directory: not for these."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(each) for each in arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS
    )
    assert not check or done.returncode == 0, f"{arguments}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has here, so that nothing is built in this directory."""
    into = tmp_path_factory.mktemp("source")
    listed = command("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes((ROOT / name).read_bytes())
    return into


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """dist/ with both files: the source distribution, and the wheel that is built from it."""
    for name in ("build", "twine"):
        pytest.importorskip(name)
    (source / "examples/quickstart/data").mkdir()
    (source / "examples/quickstart/data/pool.jsonl").write_text("{}\n")
    command(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel; what it depends on is taken from the tests' own."""
    root = tmp_path_factory.mktemp("venv")
    venv.create(root, with_pip=False)
    python = root / "bin/python"
    place = command(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=root
    ).stdout.strip()
    theirs = [path for path in sys.path if path.endswith("site-packages")]
    command(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=root
    )
    Path(place, "dependencies.pth").write_text("\n".join(theirs) + "\n")
    return python


@pytest.mark.nightly
def test_both_files_pass_twine_and_have_whole_metadata(built: Path, wheel: Path) -> None:
    names = sorted(path.name for path in built.iterdir())
    assert names == [f"zpd_ray-{__version__}-py3-none-any.whl", f"zpd_ray-{__version__}.tar.gz"]
    told = command(
        sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()), cwd=built
    ).stdout
    assert told.count("PASSED") == 2, told
    metadata = metadata_of(wheel)
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "zpd-ray developers"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"vllm", "pronounce", "test"} <= set(metadata.get_all("Provides-Extra", []))


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        return message_from_string(file.read(f"zpd_ray-{__version__}.dist-info/METADATA").decode())


@pytest.mark.nightly
def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == package_files()


@pytest.mark.nightly
def test_the_source_distribution_has_tests_and_examples_and_no_data(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert package_files() <= names
    for name in (
        "tests/conftest.py",
        "tests/irt/data/lsat6.csv",
        "examples/own_parts/varied.py",
        "docs/api.md",
    ):
        assert name in names
    for name in ("Makefile", ".ci/constraints.txt", "LICENSE", "CITATION.cff", "cluster/Dockerfile"):
        assert name in names
    assert [
        name for name in names if name.startswith(("examples/quickstart/data", ".venv", ".git/", "runs"))
    ] == []
    assert [name for name in names if name.endswith((".pyc", ".safetensors"))] == []


@pytest.mark.nightly
def test_the_installed_wheel_works(installed: Path, tmp_path: Path) -> None:
    where = command(
        installed, "-W", "error", "-c", "import zpd_ray; print(zpd_ray.__file__)", cwd=tmp_path
    ).stdout
    assert str(installed.parent.parent) in where
    program = installed.parent / "zpd-ray"
    assert command(program, "--version", cwd=tmp_path).stdout.strip() == __version__
    assert "report" in command(program, "--help", cwd=tmp_path).stdout
    template = "from zpd_ray.report.page.page import TEMPLATES; print(*(p.name for p in TEMPLATES.iterdir()))"
    read = set(command(installed, "-c", template, cwd=tmp_path).stdout.split())
    assert read == {path.name for path in (ROOT / "zpd_ray/report/page/template").iterdir()}
    code = "from importlib.metadata import version; print(version('zpd-ray'))"
    assert command(installed, "-c", code, cwd=tmp_path).stdout.strip() == __version__


@pytest.mark.nightly
def test_public_names_have_types_for_those_who_install_it(installed: Path, tmp_path: Path) -> None:
    """mypy reads them from the wheel (py.typed), finds no unknown type, and parts fit their protocols."""
    pytest.importorskip("mypy")
    lines = [CONFORM]
    for number, (module, names) in enumerate(MODULES.items()):
        lines.append(f"import {module} as m{number}")
        lines += [f"reveal_type(m{number}.{name})" for name in names]
    shutil.copytree(ROOT / "examples/own_parts", tmp_path, dirs_exist_ok=True)
    (tmp_path / "uses.py").write_text("\n".join(lines) + "\n")
    flags = (
        "--strict",
        "--python-executable",
        installed,
        "--follow-imports",
        "silent",
        "--cache-dir",
        tmp_path,
    )
    done = command(sys.executable, "-m", "mypy", *flags, "uses.py", cwd=tmp_path, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not errors, errors
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == sum(map(len, MODULES.values()))
    # Arrow brings no types along: its schemas are of no known type for anybody.
    assert [kind for kind in revealed if kind == "Any"] == ["Any"] * len(MODULES["zpd_ray.schema"])
