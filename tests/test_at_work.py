"""What a process says that it is at."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from zpd_ray import at_work as module
from zpd_ray.at_work import AtWork, rate
from zpd_ray.terminal import progress, quietly


def test_work_belongs_to_the_step_of_its_thread() -> None:
    at, begun, go_on = AtWork(), Event(), Event()

    def train() -> None:
        with at.step("train", 0), at.work("training stage 0", 4) as advance:
            advance(3)
            begun.set()
            assert go_on.wait(10)

    thread = Thread(target=train)
    thread.start()
    assert begun.wait(10)
    with at.step("measure", 1):
        with at.work("measuring ifd of stage 1", 9) as advance:
            advance(9)
        with at.work("measuring stage 1", 9) as advance:
            advance(2)
            advance(3)
            doing = {(each.step, each.stage): (each.done, each.total, each.before) for each in at.now()}
    go_on.set()
    thread.join()
    assert doing == {("train", 0): (3, 4, 0), ("measure", 1): (5, 9, 9)}
    assert at.now() == []


def test_a_step_that_fails_is_no_longer_under_way() -> None:
    at = AtWork()
    with pytest.raises(ValueError, match="no"), at.step("measure", 0), at.work("measuring", 3):
        raise ValueError("no")
    assert at.now() == []
    with at.work("of no step", 2) as advance:
        advance(1)
    assert at.now() == []


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine took 300 s to start; since then 10 a second are done."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    at = AtWork()
    with at.step("measure", 0), at.work("measuring", 10**6) as advance:
        rates = []
        for second in range(0, 600, 2):
            clock[0] = float(second)
            if second > 300:
                advance(20)
            rates.append(at.now()[0].rate)
    assert rates[:150] == [None] * 150
    assert rates[155] == pytest.approx(20 * 5 / 60)
    assert rates[185:] == [pytest.approx(10.0)] * len(rates[185:])


def test_what_an_earlier_attempt_has_done_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    at = AtWork()
    at.count_from_here()  # of nothing
    with at.step("measure", 0), at.work("measuring", 1000) as advance:
        clock[0] = 2.0
        assert at.now()[0].rate is None
        advance(900)
        at.count_from_here()
        clock[0] = 4.0
        assert at.now()[0].rate is None
        advance(20)
        clock[0] = 6.0
        [doing] = at.now()
    assert (doing.done, doing.rate) == (920, 5.0)


def test_work_that_comes_in_large_pieces_has_a_rate_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 400 items every 200 s, looked at every 2 s."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    at = AtWork()
    with at.step("measure", 0), at.work("measuring", 10**6) as advance:
        rates = []
        for second in range(2, 1002, 2):
            clock[0] = float(second)
            if second % 200 == 0:
                advance(400)
            rates.append(at.now()[0].rate)
    assert rates[:99] == [None] * 99
    assert all(each is not None and 1.0 <= each <= 8.0 for each in rates[99:])
    assert rates[-10] == pytest.approx(400 * 4 / 982)


@pytest.mark.parametrize("last", [(3.0, 5), (1.0, 9)])
def test_no_rate_where_nothing_tells_it(last: tuple[float, int]) -> None:
    assert rate((1.0, 5), last) is None


def test_what_a_bar_shows_is_told_also_where_nothing_is_shown() -> None:
    with module.at_work.step("measure", 2), quietly(), progress("measuring stage 2", 40) as advance:
        advance(7)
        [doing] = module.at_work.now()
    assert (doing.step, doing.stage, doing.what, doing.done, doing.total) == (
        "measure",
        2,
        "measuring stage 2",
        7,
        40,
    )
