"""Lists of selected items: what passes the filters, in order of rank, from no more files than needed."""

from __future__ import annotations

import pytest

from tests.cli.test_cli import invoke
from tests.pipeline.conftest import selected_of
from tests.taken import reading
from zpd_ray.errors import ZpdError
from zpd_ray.report.show import Filters, between, listed
from zpd_ray.rundir import Run


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(reason="replay"),
        Filters(group="g1"),
        Filters(p=(0.4, 0.6)),
        Filters("zone", "g2", (0.3, 1)),
    ],
)
def test_what_passes_is_listed_in_order_of_rank(taken: Run, filters: Filters) -> None:
    rows = selected_of(taken.store, 1).to_pylist()
    wanted = [
        row
        for row in rows
        if filters.reason in (None, row["reason"])
        and filters.group in (None, row["group"])
        and (filters.p is None or filters.p[0] <= row["p"] <= filters.p[1])
    ]
    found = list(listed(taken, 1, "zpd", filters, 1000))
    assert wanted
    assert [row["item_id"] for row in found] == [row["item_id"] for row in wanted]
    assert [row["prompt"] for row in found] == [row["prompt"] for row in wanted]
    assert list(listed(taken, 1, "zpd", filters, 3)) == found[:3]


def test_files_after_the_limit_are_not_read(taken: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = taken.store.names("stages/00/selected")
    assert len(names) > 1  # of the zone, and for replay
    with reading(taken, monkeypatch) as read:
        list(listed(taken, 0, "zpd", Filters(), 5))
    assert set(read) == {f"stages/00/selected/{names[0]}"}


def test_the_command(taken: Run) -> None:
    root = taken.store.root
    code, text = invoke("show", root, "--limit", "2")
    assert code == 0, text
    assert "stage 1, zpd: 60 items selected" in text
    assert "2 shown" in text
    assert "in [bold] letters" in text
    assert (
        "stage 0, random: 60 items"
        in invoke("show", f"file://{root}", "--stage", "0", "--method", "random")[1]
    )
    for arguments, told in (
        (("--reason", "zpd"), "expected one of zone, nearest, score, replay"),
        (("--group", "g7"), "groups are g0, g1, g2"),
        (("--p", "0.5"), "as in --p 0.4:0.6"),
        (("--stage", "5"), "expected one of 0, 1"),
        (("--method", "ifd"), "selects by zpd, random; got 'ifd'"),
    ):
        code, text = invoke("show", root, *arguments)
        assert code == 2
        assert told in text


def test_a_range_of_p() -> None:
    assert between("0.4:0.6") == (0.4, 0.6)
    assert between(":0.6") == (0.0, 0.6)
    assert between("0.4:") == (0.4, 1.0)
    for text in ("0.4", "a:b", "0.4-0.6"):
        with pytest.raises(ZpdError, match="expected two probabilities"):
            between(text)
