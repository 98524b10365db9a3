"""Whether two measurements of `asyncq bench` differ: the verdicts, and the tests behind them."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.waiting import until_sync

from asyncq.cli.bench import saved
from asyncq.cli.bench.comparison import (
    FASTER,
    NO_DIFFERENCE,
    SLOWER,
    compared,
    enough_blocks,
    holm,
    mann_whitney,
)
from asyncq.cli.bench.figure import Figure
from asyncq.cli.bench.latency import shares
from asyncq.cli.bench.load import rising
from asyncq.cli.bench.others import OthersMeter
from asyncq.cli.exits import CliError


def _times(*blocks: float, key: str = "p50") -> Figure:
    return Figure(key, key, "ms", False, blocks)


def _rates(*blocks: float) -> Figure:
    return Figure("rate", "rate", "jobs/s", True, blocks)


def _verdict(base: Figure, now: Figure) -> str:
    (verdict,) = compared([base], [now])
    return verdict.verdict


def test_blocks_that_are_all_slower_are_slower_and_the_other_way_round_faster():
    low, high = (1.0, 1.1, 1.2, 1.05, 1.15), (1.5, 1.6, 1.55, 1.7, 1.65)
    assert _verdict(_times(*low), _times(*high)) == SLOWER
    assert _verdict(_times(*high), _times(*low)) == FASTER
    assert _verdict(_rates(*low), _rates(*high)) == FASTER
    assert _verdict(_rates(*high), _rates(*low)) == SLOWER


def test_blocks_that_overlap_show_no_difference_even_if_their_medians_differ():
    assert _verdict(_times(1.0, 1.4, 0.8, 1.2, 0.9), _times(1.3, 0.95, 1.5, 1.1, 1.25)) == NO_DIFFERENCE


def test_a_certain_difference_that_is_tiny_is_none():
    base = [1.0 + number / 10_000 for number in range(7)]
    assert _verdict(_times(*base), _times(*(value * 1.01 for value in base))) == NO_DIFFERENCE
    assert _verdict(_times(*base), _times(*(value * 1.05 for value in base))) == SLOWER


def test_the_same_measurement_is_no_difference():
    assert _verdict(_times(1, 2, 3, 4, 5), _times(1, 2, 3, 4, 5)) == NO_DIFFERENCE
    assert _verdict(_rates(0, 0, 0, 0, 0), _rates(0, 0, 0, 0, 0)) == NO_DIFFERENCE


def test_a_rate_that_nothing_kept_up_with_before_is_faster_now():
    assert _verdict(_rates(0, 0, 0, 0, 0), _rates(500, 500, 500, 500, 500)) == FASTER
    assert _verdict(_rates(500, 500, 500, 500, 500), _rates(0, 0, 0, 0, 0)) == SLOWER


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2, 3, 4, 5), (6, 7, 8, 9, 10)),
        ((1, 5, 3, 9, 2), (4, 6, 8, 7)),
        ((1, 1, 2, 2, 3), (2, 3, 3, 3, 4)),
        ((5, 5, 5), (5, 5, 5, 5)),
    ],
)
def test_the_exact_p_is_the_share_of_all_divisions_that_are_as_far_apart(
    one: tuple[int, ...], other: tuple[int, ...]
):
    values = [*one, *other]

    def u(group: tuple[int, ...], rest: list[int]) -> float:
        return sum((a > b) + (a == b) / 2 for a in group for b in rest)

    mean = len(one) * len(other) / 2
    seen = abs(u(one, list(other)) - mean)
    far = [
        abs(
            u(tuple(values[i] for i in chosen), [values[i] for i in range(len(values)) if i not in chosen])
            - mean
        )
        >= seen
        for chosen in itertools.combinations(range(len(values)), len(one))
    ]
    assert mann_whitney(one, other) == pytest.approx(sum(far) / len(far))
    assert mann_whitney(other, one) == pytest.approx(mann_whitney(one, other))


def test_equal_measurements_differ_in_at_most_one_of_twenty_comparisons():
    draw = random.Random(5)
    wrong = 0
    for _ in range(400):
        base, now = (
            [_times(*(draw.lognormvariate(0, 0.3) for _ in range(7)), key=str(key)) for key in range(6)]
            for _ in range(2)
        )
        wrong += any(verdict.verdict != NO_DIFFERENCE for verdict in compared(base, now))
    assert wrong <= 400 * 0.05


def test_a_difference_of_a_fifth_is_found_in_noise_of_five_percent():
    draw = random.Random(6)
    base = _times(*(draw.gauss(1.0, 0.05) for _ in range(7)))
    now = _times(*(draw.gauss(1.2, 0.05) for _ in range(7)))
    assert _verdict(base, now) == SLOWER


def test_the_correction_of_holm_agrees_with_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_with_too_few_blocks_the_comparison_says_that_it_can_find_nothing():
    few = [_times(1, 2, 3, key=key) for key in "ab"]
    assert not enough_blocks(compared(few, few))
    many = [_times(1, 2, 3, 4, 5, 6, 7, key=key) for key in "abcdefghijklmno"]
    assert enough_blocks(compared(many, many))


def test_a_measurement_while_others_used_more_of_the_machine_has_no_verdict(tmp_path):
    path = tmp_path / "base.json"
    tree = {"schema": 1, "command": "load", "about": {"others": 0.02}, "parameters": {}, "figures": []}
    path.write_text(json.dumps(tree))
    base = saved.read(str(path), "load")
    assert base.was_as_busy({"others": 0.06})
    assert base.was_as_busy({"others": None})
    assert not base.was_as_busy({"others": 0.3})
    figures = [_times(1, 1, 1, 1, 1)], [_times(2, 2, 2, 2, 2)]
    assert [each.verdict for each in compared(*figures)] == [SLOWER]
    assert [each.verdict for each in compared(*figures, alike=False)] == [NO_DIFFERENCE]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says it on Linux only")
def test_a_busy_process_counts_as_others_unless_it_is_the_server():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        everything, without_it = OthersMeter(None), OthersMeter(busy.pid)
        start = Path(f"/proc/{busy.pid}/stat")

        def seconds_used() -> float:
            return int(start.read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")

        until_sync(lambda: seconds_used() > 0.5, "the process to be busy")
        share, rest = everything.share(), without_it.share()
    finally:
        busy.kill()
        busy.wait()
    assert share is not None
    assert rest is not None
    assert share > rest
    assert OthersMeter(busy.pid).share() is None, "a server that has ended says nothing"


def test_only_figures_that_both_measurements_have_are_compared():
    verdicts = compared([_times(1, key="a"), _times(1, key="b")], [_times(1, key="b"), _times(1, key="c")])
    assert [verdict.key for verdict in verdicts] == ["b"]


def test_blocks_share_all_jobs_and_none_is_empty():
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(2, 7) == [1, 1]


def test_rates_rise_from_the_lowest_to_the_highest():
    assert rising(500, 20_000, 5) == (500, 1300, 3200, 8000, 20_000)
    assert rising(100, 100, 8) == (100,)
    assert rising(100, 200, 1) == (100, 200)
    assert rising(10, 12, 30) == (10, 11, 12)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is no file that `asyncq bench latency --save` wrote"),
        ("[1]", "is no file that"),
        ('{"about": {}}', "is no file that"),
        ('{"schema": 99, "command": "latency"}', "has schema 99, and this version reads 1"),
        (
            '{"schema": 1, "command": "load"}',
            "was saved by `asyncq bench load`, and this is `asyncq bench lat",
        ),
        ('{"schema": 1, "command": "latency", "figures": [{}]}', "is damaged"),
    ],
)
def test_a_file_that_cannot_be_compared_is_refused_in_one_line(tmp_path, text: str, said: str):
    path = tmp_path / "base.json"
    path.write_text(text)
    with pytest.raises(CliError) as refused:
        saved.read(str(path), "latency")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.code == 2


def test_a_measurement_of_other_parameters_is_refused_and_of_another_machine_is_noted(tmp_path):
    path = tmp_path / "base.json"
    tree = {
        "schema": 1,
        "command": "latency",
        "about": {"cores": 2},
        "parameters": {"rate": 5},
        "figures": [],
    }
    path.write_text(json.dumps(tree))
    base = saved.read(str(path), "latency")
    base.insist_same({"rate": 5})
    with pytest.raises(CliError, match="was measured with rate 5, and this is rate 6"):
        base.insist_same({"rate": 6})
    assert base.differences({"cores": 4}) == ["cores: 2 then, 4 now"]
