"""What is planned of pipeline `auto`, and what is refused before anything is done."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from libraries import needs

from optimize import cache, config
from optimize.errors import RequestError, UnavailableError
from optimize.hub import patience
from optimize.planning import AUTO, Options, make_plan
from optimize.targets import ANY_TARGET, TARGETS


def test_all_candidates_are_judged_by_the_targets_own_limits_for_the_head():
    made = make_plan(Options(pipeline=AUTO, head="fill-mask"))

    own = config.load_pipeline("cpu").for_head("fill-mask").gates
    assert made.candidates
    assert [each.gates for each in (made.pipeline, *made.candidates)] == [own] * (1 + len(made.candidates))
    assert own != config.load_pipeline("cpu").gates


@pytest.mark.parametrize("target", TARGETS)
def test_every_candidate_is_a_shipped_pipeline_of_its_target(target):
    names = config.load_pipeline(target).candidates

    assert names
    assert [config.load_pipeline(name).target for name in names] == [target] * len(names)
    assert all(config.load_pipeline(name).stages for name in names)
    assert not {AUTO, "pytorch-fp32", f"{target}-fp32"} & set(names)
    assert AUTO not in config.shipped_pipelines()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build_only": True}, "--build-only: 'auto' has to measure"),
        ({"tuning_examples": 0}, "--tuning-examples: 'auto' has none"),
    ],
)
def test_plan_refuses_what_cannot_be_chosen_by(changes, words):
    with pytest.raises(RequestError, match=words) as refused:
        make_plan(Options(pipeline=AUTO, **changes))
    assert "\n" not in str(refused.value)


def test_a_candidate_that_cannot_be_built_here_is_left_out(monkeypatch):
    monkeypatch.setattr(
        "optimize.machine.environment.version", lambda name: "absent" if name == "neural-compressor" else "1"
    )

    made = make_plan(Options(pipeline=AUTO))

    assert [each.name for each in made.candidates] == ["cpu-dynamic", "cpu-static"]
    assert "neural-compressor is not installed" in made.left_out["cpu-neural-compressor"]


def test_plan_refuses_with_3_where_no_candidate_can_be_built(optimize, monkeypatch, capsys):
    monkeypatch.setattr("optimize.machine.environment.version", lambda _: "absent")

    assert optimize("plan", "--pipeline", AUTO) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert [name for name in config.load_pipeline("cpu").candidates if name not in err] == []


def test_a_target_without_candidates_is_refused():
    bare = replace(config.load_pipeline("cpu"), stages=(), candidates=())

    with pytest.raises(RequestError, match="has no candidates for 'auto'"):
        make_plan(Options(pipeline=AUTO), bare)


def test_a_pipeline_of_ones_own_may_name_candidates_and_no_stages(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("target: cpu\ncandidates: [cpu-dynamic]\ngates: {max_size_ratio: 0.4}\n", encoding="utf-8")

    made = make_plan(Options(pipeline=str(mine)))

    assert [each.name for each in made.candidates] == ["cpu-dynamic"]
    assert made.candidates[0].gates == made.pipeline.gates
    assert made.pipeline.gates.max_size_ratio == 0.4


@pytest.mark.parametrize(
    ("candidates", "words"),
    [("[mine.yaml]", "cannot be read"), ("[openvino-int8]", "is for target 'openvino'"), ("[auto]", "has no stages")],
)
def test_a_candidate_that_is_none_is_refused(candidates, words, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"target: cpu\ncandidates: {candidates}\n", encoding="utf-8")

    with pytest.raises(RequestError, match=words):
        make_plan(Options(pipeline=str(mine)))


def test_a_missing_target_refuses_auto_as_any_pipeline(monkeypatch):
    monkeypatch.setitem(TARGETS, "cpu", replace(TARGETS["cpu"], unavailable=lambda _: "no such processor"))

    with pytest.raises(UnavailableError, match="no such processor"):
        make_plan(Options(pipeline=AUTO))


def mine(folder: Path, candidates: str, target: str = "auto") -> str:
    path = folder / "mine.yaml"
    path.write_text(f"target: {target}\ncandidates: [{candidates}]\n", encoding="utf-8")
    return str(path)


@needs("openvino", "nncf")
@pytest.mark.parametrize(
    "changes", [{"target": ANY_TARGET}, {"target": ANY_TARGET, "pipeline": AUTO}, {"pipeline": "engines"}]
)
def test_candidates_may_be_of_several_targets(changes):
    made = make_plan(Options(**changes))

    assert made.targets == ("cpu", "openvino")
    assert {each.gates for each in made.candidates} == {config.load_pipeline("engines").gates}
    assert all(made.of(each).target.name == each.target for each in made.candidates)


@needs("openvino", "nncf")
def test_a_named_target_leaves_its_own_of_them():
    made = make_plan(Options(pipeline="engines", target="openvino"))

    assert made.targets == ("openvino",)
    assert made.request.target == "openvino"


def test_engines_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setitem(TARGETS, "openvino", replace(TARGETS["openvino"], unavailable=lambda _: "none here"))
    made = make_plan(Options(target=ANY_TARGET))

    assert made.targets == ("cpu",)
    assert "none here" in made.left_out["openvino-int8"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pipeline": "cpu-static"}, "pipeline cpu-static: is for target 'cpu', not 'auto'"),
        ({"settings": {"runtime.hint": "latency"}}, "target auto has no settings"),
        ({"build_only": True}, "'engines' has to measure to choose"),
    ],
)
def test_what_goes_with_one_target_alone_is_refused_of_any(changes, words):
    with pytest.raises(RequestError, match=words):
        make_plan(Options(target=ANY_TARGET, **changes))


def test_targets_on_unlike_devices_are_not_compared(tmp_path):
    with pytest.raises(RequestError, match="run on unlike devices"):
        make_plan(Options(pipeline=mine(tmp_path, "cpu-static, cuda")))


def test_stages_are_of_one_target(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("target: auto\nstages: [export]\n", encoding="utf-8")

    with pytest.raises(RequestError, match="stages are for one target"):
        make_plan(Options(pipeline=str(path)))


def test_plan_shows_every_candidate(optimize, capsys):
    assert optimize("plan", "--pipeline", AUTO) == 0

    out = capsys.readouterr().out
    assert [name for name in config.load_pipeline("cpu").candidates if f"{name}: " not in out] == []


def test_a_pipeline_that_is_given_stands_in_for_auto():
    made = make_plan(Options(pipeline=AUTO, shapes=("1x16",)), config.load_pipeline("cpu-fused"))

    assert (made.request.pipeline, made.pipeline.name, made.candidates) == (AUTO, "cpu-fused", ())


@pytest.mark.parametrize("pipeline", ["cpu-pruned", pytest.param("openvino-pruned", marks=needs("openvino", "nncf"))])
def test_a_budget_reaches_the_stage_that_prunes(pipeline):
    plan = make_plan(Options(pipeline=pipeline, budget=0.4))
    assert plan.pipeline.stages[0].params.budget == 0.4
    assert plan.request.budget == 0.4
    assert plan.request.stages[0]["prune"]["budget"] == 0.4


@pytest.mark.parametrize(
    ("pipeline", "budget", "words"),
    [
        ("cpu-static", 0.5, "--budget: pipeline cpu-static has no stage 'prune', only export, quantize_static; name"),
        ("cpu-pruned", 0.0, "--budget: prune: budget: input should be greater than 0"),
        ("cpu-pruned", 1.5, "--budget: prune: budget: input should be less than or equal to 1"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(pipeline, budget, words):
    with pytest.raises(RequestError, match=rf"^{words}"):
        make_plan(Options(pipeline=pipeline, budget=budget))


def test_a_tolerance_reaches_the_stage_that_looks_for_the_budget():
    plan = make_plan(Options(pipeline="cpu-pruned", fastest_within=0.01))
    assert plan.pipeline.stages[0].params.fastest_within == plan.request.fastest_within == 0.01


def test_a_budget_and_a_tolerance_exclude_each_other():
    with pytest.raises(RequestError, match=r"^--budget: --fastest-within looks for the budget; give one of the two$"):
        make_plan(Options(pipeline="cpu-pruned", fastest_within=0.01, budget=0.5))


def test_what_is_measured_on_a_target_cannot_be_only_built_without_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "target: cuda\nstages: [prune: {measure: latency}, export: {readout_slice: false}, fuse, convert_fp16]\n"
    )
    with pytest.raises(UnavailableError, match=r"^target cuda: "):
        make_plan(Options(pipeline=str(path), build_only=True))
    path.write_text(path.read_text().replace("latency", "flops"))
    assert make_plan(Options(pipeline=str(path), build_only=True)).build_only


@pytest.fixture
def corpus(tmp_path):
    """A file of the given content."""

    def write(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "no such file or folder"),
        ("empty.txt", b"\n \n", "holds no text"),
        ("latin.txt", b"caf\xe9\n", "cannot be read"),
        ("broken.jsonl", b'{"text": "one"}\n{"text":\n', "line 2 is not JSON"),
        ("numbers.jsonl", b'{"label": 1}\n', "holds no text"),
        (".", None, "holds no text"),
    ],
)
def test_a_corpus_that_gives_no_texts_is_refused_in_one_line(name, content, words, corpus, tmp_path, optimize, capsys):
    if content is not None:
        corpus(content, name)

    assert optimize("run", "--vocabulary", str(tmp_path / name), "--cache", str(tmp_path / "cache")) == 2

    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("optimize: stage prune_vocabulary: ")
    assert words in err
    assert not (tmp_path / "cache").exists()


def test_fill_mask_keeps_its_vocabulary(corpus):
    with pytest.raises(RequestError, match="head 'fill-mask' answers with the very words that would go"):
        make_plan(Options(head="fill-mask", vocabulary=corpus(b"one")))


@pytest.mark.parametrize("pipeline", [name for name in config.shipped_pipelines() if name.startswith("cpu")])
def test_a_vocabulary_is_pruned_first_in_any_pipeline(pipeline, corpus):
    path = corpus(b"one")
    made = make_plan(Options(pipeline=pipeline, vocabulary=path))
    own = [step.stage for step in config.load_pipeline(pipeline).stages]
    assert [step.stage for step in made.pipeline.stages] == ["prune_vocabulary", *own]
    assert made.request.stages[0]["prune_vocabulary"]["corpus"] == made.request.vocabulary == path


def test_every_candidate_prunes_its_vocabulary(corpus):
    made = make_plan(Options(pipeline=AUTO, vocabulary=corpus(b"one")))
    assert made.pipeline.stages == ()
    assert {each.stages[0].stage for each in made.candidates} == {"prune_vocabulary"}


def test_what_is_built_already_needs_no_corpus(tmp_path):
    options = Options(vocabulary=str(tmp_path / "gone.txt"))
    with pytest.raises(RequestError, match="no such file or folder"):
        make_plan(options)
    assert make_plan(options, built=True).pipeline.stages[0].stage == "prune_vocabulary"


def test_any_parameter_can_be_set():
    settings = {"quantize_static.percentile": "99.9", "export.lean": False, "gates.min_speedup": 3}

    made = make_plan(Options(settings=settings))

    export, quantize = made.pipeline.stages
    assert (export.params.lean, quantize.params.percentile, made.pipeline.gates.min_speedup) == (False, 99.9, 3.0)
    assert made.request.settings == settings
    assert made.request.gates["min_speedup"] == 3.0


def test_what_is_set_reaches_the_candidates_that_have_the_stage():
    made = make_plan(Options(pipeline=AUTO, settings={"quantize_dynamic.embedding": False, "gates.min_speedup": 2}))

    found = {step.stage: step.params for each in made.candidates for step in each.stages}
    assert found["quantize_dynamic"].embedding is False
    assert {each.gates.min_speedup for each in made.candidates} == {2.0}


def test_what_no_candidate_has_cannot_be_set():
    words = r"^--set: pipeline cpu-dynamic, cpu-static, cpu-neural-compressor has no stage 'prune', only export, "
    with pytest.raises(RequestError, match=words):
        make_plan(Options(pipeline=AUTO, settings={"prune.budget": 0.5}))


@pytest.mark.parametrize("pipeline", [AUTO, "cpu-static"])
def test_a_misspelt_stage_is_refused_with_the_nearest(pipeline):
    with pytest.raises(RequestError, match="unknown name 'quantize_statik'; did you mean 'quantize_static'"):
        make_plan(Options(pipeline=pipeline, settings={"quantize_statik.method": "mse"}))


def test_a_shorthand_is_what_it_is_short_for(corpus):
    path = corpus(b"one")
    short = make_plan(Options(pipeline="cpu-pruned", budget=0.4, vocabulary=path))
    settings = {"prune.budget": 0.4, "prune_vocabulary.corpus": path}

    assert make_plan(Options(pipeline="cpu-pruned", settings=settings)).pipeline == short.pipeline


@pytest.mark.parametrize(
    ("pipeline", "asked", "measured"),
    [
        ("cpu-static", ("1x16",), ["1x16", "1x128"]),
        ("cpu-static", ("1x128", "1x16"), ["1x128", "1x16"]),
        ("auto", ("1x16",), ["1x16", "1x128"]),
    ],
)
def test_the_shape_that_a_limit_is_judged_at_is_measured_too(pipeline, asked, measured):
    plan = make_plan(Options(pipeline=pipeline, shapes=asked))
    assert list(plan.request.shapes) == measured
    assert plan.added_shape == (measured[-1] if len(measured) > len(asked) else None)


def test_without_a_limit_on_the_speed_up_no_shape_is_added(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("target: cpu\nstages: [export]\ngates: {max_size_ratio: 2.0}\n")
    assert make_plan(Options(pipeline=str(path), shapes=("1x16",))).request.shapes == ("1x16",)


class Failing(fsspec.AbstractFileSystem):
    """A store that fails as its address says."""

    protocol = "failing"

    def info(self, path: str, **_: object) -> dict[str, object]:
        """Fail, or let wait."""
        if "silent" in path:
            time.sleep(5)
        raise PermissionError("no") if "forbidden" in path else OSError("no route")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(patience, "WORDLESS_SECONDS", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_shared_cache_is_a_folder_that_knows_its_address(home):
    address = "memory://planned/cache"

    folder = make_plan(Options(cache=address)).cache

    assert (folder, cache.address_of(folder)) == (cache.place_of(address), address)
    assert home in folder.parents
    assert fsspec.filesystem("memory").find("/planned") == ["/planned/cache/README.txt"]
    assert make_plan(Options(cache=folder)).cache == folder


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("failing://host/x", 3, "cannot be reached (OSError); check the network and --cache"),
        ("failing://host/silent", 3, "does not answer in time; try again later"),
        ("failing://host/forbidden", 2, "these credentials do not allow that; check them and --cache"),
        ("read+memory://planned/nowhere", 2, "no shared cache is there; check --cache"),
        ("nosuch://host/x", 2, "is no address of a kind that is known; check --cache"),
        ("https://host/x", 2, "can only be read; name a place that can be written to"),
        ("sftp://me:word@host/x", 2, "holds a password or a query"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run", "bench"])
def test_a_shared_cache_that_cannot_be_is_refused_before_anything_is_done(
    command, address, code, says, home, optimize, capsys
):
    assert optimize(command, "--cache", address) == code

    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("optimize: ")
    assert says in line
    assert "word" not in line.replace("password", "")
    assert not home.exists()


def test_a_copy_of_a_shared_cache_that_is_named_by_its_folder_is_no_less_asked(home):
    with pytest.raises(UnavailableError, match="failing://host/x: cannot be reached"):
        make_plan(Options(cache=cache.open_place("failing://host/x")))


def test_a_shared_cache_has_its_copy_where_the_user_may_write(home, optimize, capsys):
    home.write_text("in the way", encoding="utf-8")

    assert optimize("plan", "--cache", "memory://planned/elsewhere") == 3
    assert capsys.readouterr().err.startswith("optimize: cache: ")


def test_plan_shows_where_a_shared_cache_is(home, optimize, capsys):
    assert optimize("plan", "--cache", "memory://planned/shown") == 0
    assert "memory://planned/shown, copied to" in capsys.readouterr().out
