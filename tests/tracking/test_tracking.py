from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ci.test_junit import check, judged
from comparing.cases import judged as judged_run
from comparing.cases import right_but
from report.conftest import document, make_manifest

import optimize as api
from optimize import compared, manifest, tracking
from optimize.cli.commands import main
from optimize.comparing.regressions import hold_against
from optimize.delivering import deliver
from optimize.errors import RequestError, UnavailableError
from optimize.refusals import check_delivery
from optimize.tracking import find_tracker
from optimize.tracking import mlflow as ours
from optimize.tracking.interface import Tracked
from optimize.tracking.record import tracked

FOLDER = Path("runs/one")


@dataclass
class Book:
    """A tracker that keeps what it is told, or fails."""

    fails: bool = False
    checked: list[str | None] = field(default_factory=list)
    runs: list[tuple[Tracked, str | None]] = field(default_factory=list)

    def check(self, place: str | None) -> None:
        self.checked.append(place)

    def track(self, run: Tracked, place: str | None) -> str:
        if self.fails:
            raise UnavailableError("--track book: is closed; open it")
        self.runs.append((run, place))
        return "page 1"


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    found = Book()
    monkeypatch.setattr(tracking, "TRACKERS", {"book": found})
    return found


@pytest.mark.parametrize(
    ("words", "place"),
    [("book", None), ("book:", None), ("book:http://x:5000/a", "http://x:5000/a"), ("book:a:b", "a:b")],
)
def test_what_stands_behind_the_first_colon_is_the_place(words, place, book):
    assert find_tracker(words) == (book, place)
    assert book.checked == [place]


def test_an_unknown_tracker_is_refused_with_the_nearest(book):
    with pytest.raises(RequestError, match=r"--track: unknown name 'bok'; did you mean 'book'\?"):
        check_delivery(None, "bok:x")


def test_mlflow_that_is_not_installed_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None if name == "mlflow" else pytest.fail(name))

    with pytest.raises(UnavailableError, match=r"MLflow is not installed; pip install 'distilbert-optimize\[mlflow\]'"):
        check_delivery(None, "mlflow:http://127.0.0.1:9")


def test_a_request_whose_tracker_is_absent_is_refused_before_anything_is_done(monkeypatch, optimize, capsys, tmp_path):
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda _: None)

    assert optimize("run", "--track", "mlflow", "--out", str(tmp_path / "runs")) == 3
    assert capsys.readouterr().err.startswith("optimize: tracker mlflow: MLflow is not installed; ")
    assert not (tmp_path / "runs").exists()


def test_finished_runs_are_told_as_runs_tell_of_themselves(book, passed_run, optimize, capsys):
    assert optimize("track", str(passed_run), str(passed_run), "--to", "book:x") == 0

    assert capsys.readouterr().out == f"{passed_run}: page 1\n" * 2
    (told, place), again = book.runs
    assert (told, place) == again == (tracked(passed_run, manifest.read(passed_run)), "x")


def test_finished_runs_are_told_as_json_or_to_a_program(book, passed_run, optimize, capsys):
    assert optimize("track", str(passed_run), "--to", "book", "--json") == 0

    assert json.loads(capsys.readouterr().out) == {"run": str(passed_run), "tracked": "page 1"}
    assert api.track(passed_run, to="book") == ["page 1"]


@pytest.fixture
def copy(passed_run, tmp_path) -> Path:
    return Path(shutil.copytree(passed_run, tmp_path / "copy"))


def claim(run: Path) -> None:
    """Say of a run that it has no limits to meet."""
    record = manifest.read(run)
    manifest.write(record.model_copy(update={"verdict": record.verdict.model_copy(update={"checks": []})}), run)


SPOILT = {
    "check 'max_size_ratio' is missing": claim,
    "is not what the manifest says": lambda run: (run / "model" / "more.txt").write_text("x"),
    "is neither a file nor a folder of the run": lambda run: (run / "more").symlink_to("/etc/hostname"),
    "not a record of a regression": lambda run: (run / compared.FILE).write_text("{}"),
}


@pytest.mark.parametrize("why", SPOILT)
def test_a_run_that_is_not_what_it_says_is_refused_and_none_is_told(why, book, passed_run, copy, optimize, capsys):
    SPOILT[why](copy)

    assert optimize("track", str(passed_run), str(copy), "--to", "book") == 2
    assert why in capsys.readouterr().err
    assert book.runs == []


def test_finished_runs_for_an_unknown_tracker_are_refused_with_the_nearest(book, optimize, capsys):
    assert optimize("track", "runs/one", "--to", "bok") == 2
    assert capsys.readouterr().err == "optimize: --to: unknown name 'bok'; did you mean 'book'?\n"


def test_each_run_is_told_to_the_tracker(book):
    done = deliver([(FOLDER, make_manifest())] * 2, junit=None, track="book:x")

    assert done == ["tracked: page 1"] * 2
    assert [(run.folder, place) for run, place in book.runs] == [(FOLDER, "x")] * 2


def test_without_a_tracker_nobody_is_told(book):
    assert deliver([(FOLDER, make_manifest())], junit=None, track=None) == []
    assert book.runs == []


def test_a_tracker_that_fails_is_told_with_where_the_run_is(book):
    book.fails = True

    with pytest.raises(UnavailableError, match=r"^--track book: is closed; the run is kept in runs/one, open it$"):
        deliver([(FOLDER, make_manifest())], junit=None, track="book")


def test_a_tracker_that_fails_ends_with_code_3_once_the_result_and_junit_are_there(book, monkeypatch, capsys, tmp_path):
    book.fails = True
    result = judged("failed", check("a", "failed"))
    monkeypatch.setattr("optimize.planning.make_plan", lambda options, progress: options)
    monkeypatch.setattr("optimize.running.run", lambda made, progress: (FOLDER, result))
    monkeypatch.setattr("sys.argv", ["optimize", "run", "-q", "--track", "book", "--junit", str(tmp_path / "x.xml")])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 3
    out, err = capsys.readouterr()
    assert out.startswith("failed")
    assert err == "optimize: --track book: is closed; the run is kept in runs/one, open it\n"
    assert (tmp_path / "x.xml").is_file()


def test_a_run_is_told_with_what_was_asked_measured_and_judged():
    told = tracked(FOLDER, make_manifest())

    assert (told.name, told.folder) == ("one", FOLDER)
    assert told.params["pipeline"] == "cpu"
    assert told.params["quantize_dynamic.per_channel"] == "True"
    assert told.params["gates.min_speedup"] == "1.5"
    assert list(told.metrics) == ["pytorch-fp32", "quantize_dynamic"]
    numbers = told.metrics["quantize_dynamic"]
    assert (numbers["accuracy"], numbers["size_ratio"], numbers["p50_ms/1x128"]) == (0.895, 0.3, 10.0)
    assert (told.tags["verdict"], told.tags["limit.min_speedup"], told.tags["version.onnx"]) == (
        "passed",
        "passed",
        "1.23.2",
    )


def test_the_description_has_the_verdict_the_limits_and_the_models():
    lines = tracked(FOLDER, make_manifest()).description.splitlines()

    assert lines[2] == "**PASSED**: every limit is met."
    assert any(line.startswith("| min_speedup | 1.5 |") for line in lines)
    assert any(line.startswith("| quantize_dynamic | 0.8950 |") for line in lines)


def test_the_description_says_what_got_worse():
    baseline, run = judged_run("baseline"), judged_run(answers={"quantize_dynamic": right_but(range(120))})

    description = tracked(FOLDER, run.record, hold_against(baseline, run)).description

    assert "**Something got worse since the last accepted run: metric" in description
    assert "\n\n## Since the last accepted run\n\n" in description


def test_what_was_not_measured_is_not_told():
    told = tracked(FOLDER, judged("unverified", measurements=[]))

    assert told.metrics == {}
    assert "| model |" not in told.description
    assert told.tags["verdict"] == "unverified"
    bare = {**document()["measurements"][1], "metric": None, "drift": None, "latency": [], "load_seconds": None}
    numbers = tracked(FOLDER, make_manifest(measurements=[bare])).metrics["quantize_dynamic"]
    assert numbers.keys() == {"size_bytes", "size_ratio", "peak_memory_bytes"}


@dataclass
class Client:
    """MLflow's client, as far as a run needs it."""

    known: bool = False
    said: list[Any] = field(default_factory=list)

    def get_experiment_by_name(self, name: str) -> Any:
        return type("Experiment", (), {"experiment_id": f"old {name}"}) if self.known else None

    def create_experiment(self, name: str) -> str:
        return f"new {name}"

    def create_run(self, number: str, *, tags: dict[str, str], run_name: str) -> Any:
        assert tags["mlflow.note.content"].startswith("# ")
        self.said.append(("run", number, tags["verdict"], run_name))
        return type("Run", (), {"info": type("Info", (), {"run_id": "r1"})})

    def set_terminated(self, made: str, status: str) -> None:
        self.said.append((made, status))


@pytest.mark.parametrize(("known", "experiment"), [(True, "old"), (False, "new")])
def test_an_experiment_is_made_once_and_a_whole_run_is_finished(known, experiment, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setattr(ours, "_log", lambda client, made, run: None)
    client = Client(known)

    assert ours._track(client, tracked(FOLDER, make_manifest())) == "run r1 of experiment distilbert-optimize"
    assert client.said == [("run", f"{experiment} distilbert-optimize", "passed", "one"), ("r1", "FINISHED")]


def test_a_run_that_is_not_whole_is_marked_as_failed(monkeypatch):
    def fail(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(ours, "_log", fail)
    client = Client()

    with pytest.raises(ConnectionError):
        ours._track(client, tracked(FOLDER, make_manifest()))
    assert client.said[-1] == ("r1", "FAILED")


def test_the_judged_models_numbers_stand_once_more_and_no_other_than_finite_ones():
    metrics = {"a": {"x": 1.0, "y": math.nan}, "b": {"x": 2.0, "z": math.inf}}

    assert list(ours._metrics(metrics)) == [("a/x", 1.0), ("b/x", 2.0), ("x", 2.0)]
    assert list(ours._metrics({})) == []


@pytest.mark.parametrize(
    ("text", "kept"), [("x" * 5000, "x" * 5000), ("a\n" * 2501, "a\n" * 2474 + "a"), ("x" * 5001, "x" * 4950)]
)
def test_a_description_ends_with_a_whole_line_where_not_all_of_it_is_kept(text, kept):
    found = ours._note(text)

    assert found == kept + ("" if kept == text else ours.CUT)
    assert len(found) <= 5000


@pytest.mark.parametrize(
    ("name", "taken"), [("p50_ms/8x128@device", "p50_ms/8x128_device"), ("a.b-c d", "a.b-c d"), ("x" * 300, "x" * 250)]
)
def test_names_are_such_as_mlflow_takes(name, taken):
    assert ours._name(name) == taken


def test_no_more_is_sent_at_a_time_than_is_taken():
    assert list(ours._batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(ours._batches([], 2)) == []
