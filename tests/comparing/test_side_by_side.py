from __future__ import annotations

import json

import numpy as np
import pytest
from comparing.cases import FP32, INT8, TIMES, judged, put, request, right_but
from report.conftest import ENVIRONMENT

from optimize.comparing.environments import differences
from optimize.comparing.judged import read_judged
from optimize.comparing.side_by_side import compare_runs
from optimize.errors import RequestError
from optimize.evaluate.statistics import apart, bootstrap_p, holm, mcnemar
from optimize.report.comparisons import pair_rows, run_rows
from optimize.scores import FILE, write_kept

BETTER = right_but(range(90), 500)
"""Thirteen of INT8's errors are right, and one more is wrong."""


@pytest.fixture
def folders(tmp_path):
    def make(**runs):
        return [put(tmp_path / name, run) for name, run in runs.items()]

    return make


def test_two_runs_are_paired_example_by_example(folders):
    first, second = folders(a=judged(), b=judged(answers={"quantize_dynamic": BETTER}))
    pair = compare_runs([first, second]).pairs[0]

    answers = pair.answers
    assert (answers.examples, answers.first_alone, answers.second_alone) == (1000, 1, 13)
    assert answers.difference == pytest.approx(0.012)
    assert answers.interval[0] < answers.difference < answers.interval[1]
    assert (answers.test, answers.p_value) == ("mcnemar", pytest.approx(mcnemar(13, 1)))
    assert (pair.decisions.differing, pair.decisions.agreement) == (14, pytest.approx(0.986))
    assert (pair.size_ratio, pair.environment, pair.speed[0].ratio) == (1.0, [], 1.0)


def test_rows_are_paired_and_not_only_counted(folders):
    """Both have 103 wrong, and of other examples."""
    other = right_but(range(500, 603))
    answers = compare_runs(folders(a=judged(), b=judged(answers={"quantize_dynamic": other}))).pairs[0].answers

    assert (answers.first_alone, answers.second_alone) == (103, 103)
    assert (answers.difference, answers.p_value) == (0.0, 1.0)


def test_other_heads_and_machines_stand_side_by_side_without_numbers_that_mean_nothing(folders):
    slower = {name: 4 * time for name, time in TIMES.items()}
    other = judged(
        request=request(head="question-answering"), environment={**ENVIRONMENT, "cpu": "Other"}, times=slower
    )
    found = compare_runs(folders(a=judged(), b=other))

    pair = found.pairs[0]
    assert (pair.answers, pair.decisions) == (None, None)
    assert "heads differ" in pair.answers_not_comparable
    assert (pair.speed[0].over, pair.speed[0].ratio) == ("cpu-fp32", pytest.approx(1.0))
    assert [run.latency[0].p50_ms for run in found.runs] == [10.0, 40.0]


def test_another_target_is_compared_beside_the_reference_that_both_have(folders):
    environment = {**ENVIRONMENT, "features": ["avx2", "avx512_vnni"]}
    stages = [
        {
            **judged().record.stages[-1].model_dump(),
            "artifact": {"kind": "openvino", "digest": "0" * 64, "size_bytes": 1},
        }
    ]
    other = judged(request=request(target="openvino"), environment=environment, stages=stages)
    speed = compare_runs(folders(a=judged(), b=other)).pairs[0].speed[0]

    assert (speed.over, speed.ratio) == ("pytorch-fp32", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"environment": {**ENVIRONMENT, "cpu": "Other"}}, "cpu: Imagined CPU and Other"),
        ({"environment": {**ENVIRONMENT, "features": ["amx_int8"]}}, "features: avx2 and amx_int8"),
        ({"environment": {**ENVIRONMENT, "cores": 4}}, "cores: 2 and 4"),
        ({"environment": {**ENVIRONMENT, "versions": {"onnxruntime": "1.32"}}}, "onnxruntime: unknown and 1.32"),
        ({"request": request(threads=1)}, "threads: 2 and 1"),
    ],
)
def test_environments_match_only_where_all_that_times_depend_on_is_alike(change, what):
    assert differences(judged().record, judged(**change).record) == [what]


def test_what_times_do_not_depend_on_may_differ():
    versions = {"onnx": "1.99", "datasets": "9"}
    change = {"environment": {**ENVIRONMENT, "versions": versions, "memory_bytes": 2**40}}
    assert differences(judged().record, judged(**change).record) == []


def test_older_runs_say_that_decisions_were_not_recorded(folders):
    pair = compare_runs(folders(a=judged(recorded=False), b=judged())).pairs[0]

    assert pair.answers.examples == 1000
    assert pair.decisions is None
    assert "not recorded in a" in pair.decisions_not_comparable


def test_runs_without_scores_say_so(folders):
    first, second = folders(a=judged(), b=judged())
    (second / FILE).unlink()

    assert "not recorded in b" in compare_runs([first, second]).pairs[0].answers_not_comparable


def test_scores_of_another_run_are_refused(folders):
    first, second = folders(a=judged(), b=judged())
    write_kept(judged(answers={"quantize_dynamic": FP32}).scores, second)

    with pytest.raises(RequestError, match=r"b: its scores\.npz is not of its manifest's metric"):
        compare_runs([first, second])


@pytest.mark.parametrize("content", [b"", b"PK nonsense", b"\x93NUMPY"])
def test_a_file_that_is_no_table_of_scores_is_refused(folders, content):
    (run,) = folders(a=judged())
    (run / FILE).write_bytes(content)

    with pytest.raises(RequestError, match=r"scores.npz: cannot be read"):
        read_judged(run)


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 99)], ids=["encrypted", "packed otherwise"])
def test_scores_that_cannot_be_unpacked_are_refused(place, value, folders):
    (run,) = folders(a=judged())
    content = bytearray((run / FILE).read_bytes())
    # Flags and the kind of packing, of the first entry: in its own header, and two bytes further in the directory's.
    content[place] = content[content.index(b"PK\x01\x02") + place + 2] = value
    (run / FILE).write_bytes(content)

    with pytest.raises(RequestError, match=r"scores.npz: cannot be read"):
        read_judged(run)


def test_scores_that_would_run_code_are_refused(folders):
    (run,) = folders(a=judged())
    np.savez(run / FILE, **{"x/decisions": np.array([object()])})

    with pytest.raises(RequestError, match="cannot be read"):
        read_judged(run)


def test_one_run_alone_is_refused(folders):
    with pytest.raises(RequestError, match="name two or more"):
        compare_runs(folders(a=judged()))


def test_folders_that_are_called_alike_are_told_apart(tmp_path):
    runs = [put(tmp_path / place / "run", judged()) for place in "ab"]
    assert [side.name for side in compare_runs(runs).runs] == list(map(str, runs))


def test_the_command_prints_tables_or_json_and_writes_a_page(folders, optimize, capsys, tmp_path):
    worse = judged(answers={"quantize_dynamic": right_but(range(120))}, request=request(threads=1))
    runs = list(map(str, folders(a=judged(), b=worse, c=judged(request=request(head="fill-mask")))))
    page = tmp_path / "page.md"

    assert optimize("compare", *runs, "--out", str(page)) == 0
    shown = capsys.readouterr().out
    assert optimize("compare", *runs, "--json") == 0
    found = json.loads(capsys.readouterr().out)

    assert "not comparable" in shown
    assert "threads: 2 and 1" in shown
    assert [pair["answers"] and pair["answers"]["first_alone"] for pair in found["pairs"]] == [17, None]
    assert "| A, then B | -0.0170 [" in page.read_text(encoding="utf-8")


def test_every_row_of_a_table_is_as_wide_as_its_header(folders):
    found = compare_runs(folders(a=judged(), b=judged(), c=judged(request=request(head="fill-mask"))))

    for rows in (run_rows(found), pair_rows(found)):
        assert {len(row) for row in rows} == {len(rows[0])}


def test_holm_adjusts_the_smallest_p_most():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_one_sided_test_sees_losses_alone():
    assert mcnemar(*apart(INT8, FP32), worse=True) == pytest.approx(0.5**3)
    assert mcnemar(*apart(FP32, INT8), worse=True) == 1.0
    assert mcnemar(*apart(INT8, INT8), worse=True) == 1.0


def test_a_bootstrap_never_proves_more_than_its_resamples():
    assert bootstrap_p(np.ones(99), worse=True) == 0.01
    assert bootstrap_p(-np.ones(99), worse=True) == 1.0
    assert bootstrap_p(np.zeros(99)) == 1.0
