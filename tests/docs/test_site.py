"""The site is built without a warning, loads nothing from elsewhere, and its reference is whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from generate.config import keys

from tests.docs.pages import DOCS, pages
from tests.pipeline.processes import ROOT
from zpd_ray import schema
from zpd_ray.irt.flags import FLAGS

pytest.importorskip("sphinx", reason="needs the extra docs")
# What a browser fetches by itself; links wait to be followed.
LOADS = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
CSS_LOADS = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    trees = ["--doctree-dir", str(into / "trees")]
    done = subprocess.run(
        [*build, *trees, str(DOCS), str(into / "html")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return into / "html"


def test_every_page_is_there(site: Path) -> None:
    assert [page.name for page in pages() if not (site / f"{page.name}.html").exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert LOADS.findall(page.read_text(encoding="utf-8")) == [], page
    for sheet in site.rglob("*.css"):
        assert CSS_LOADS.findall(sheet.read_text(encoding="utf-8")) == [], sheet


def test_no_link_within_the_site_is_dead(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8")):
            target, _, place = link.partition("#")
            if "://" in link or link.startswith("mailto:") or not target:
                continue
            file = (page.parent / target.partition("?")[0]).resolve()
            assert file.exists(), (page, link)
            if place and file.suffix == ".html":
                assert f'id="{place}"' in file.read_text(encoding="utf-8"), (page, link)


def test_the_reference_is_whole(site: Path) -> None:
    """Every key with its meaning, every column with its own, every flag."""
    texts = {
        name: (site / f"reference/{name}.html").read_text(encoding="utf-8")
        for name in ("config", "tables", "names")
    }
    assert [key for key in keys() if f">{key}<" not in texts["config"] and not section(key)] == []
    columns = {
        *schema.ITEM.names,
        *schema.QUARANTINE.names,
        *schema.MEASUREMENT.names,
        *schema.SELECTED.names,
    }
    assert [name for name in columns if f">{name}<" not in texts["tables"]] == []
    assert [flag for flag in FLAGS if f">{flag}<" not in texts["names"]] == []


def section(key: str) -> bool:
    return any(other.startswith(f"{key}.") for other in keys())


@pytest.mark.parametrize("name", ["config", "commands", "names", "tables", "files"])
def test_everything_has_a_meaning(site: Path, name: str) -> None:
    """The last cell of every row is filled."""
    text = (site / f"reference/{name}.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr class=\"row-(?:odd|even)\"><td>(.*?)</tr>", text, flags=re.DOTALL)
    assert rows
    assert [row for row in rows if re.search(r"<td>(?:<p>)?(?:</p>)?\s*</td>\s*$", row)] == []
