"""Pipelines: every shipped one is right, and a wrong one is refused with what to write instead."""

from pathlib import Path

import pytest

from optimize.config import load_pipeline, parse_pipeline, parse_step, pipelines_folder, shipped_pipelines
from optimize.errors import RequestError, UnknownNameError
from optimize.gates import Gates
from optimize.stages import STAGES
from optimize.targets import ANY_TARGET, TARGETS

SHIPPED = sorted(pipelines_folder().rglob("*.y*ml"))
RIGHT = {"target": "cpu", "stages": ["export", {"fuse": {"embedding": False}}, "quantize_dynamic"], "gates": {}}


def parse(**changes):
    return parse_pipeline({**RIGHT, **changes}, name="mine", where="mine.yaml")


def refusal(**changes):
    """The one line with which a changed pipeline is refused."""
    with pytest.raises(RequestError) as caught:
        parse(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


VOCABULARY = {"prune_vocabulary": {"corpus": "a.txt"}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_pipeline_loads_by_name_and_by_path(path):
    by_name, by_path = load_pipeline(path.stem), load_pipeline(str(path))
    assert by_name == by_path
    assert (by_name.name, by_name.target in (*TARGETS, ANY_TARGET)) == (path.stem, True)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_pipeline_goes_from_torch_to_what_its_target_runs(path):
    pipeline = load_pipeline(path.stem)
    stages = [STAGES[step.stage] for step in pipeline.stages]
    kinds = ["torch", *(stage.gives for stage in stages)]
    assert kinds[:-1] == [stage.takes for stage in stages]
    assert (not stages and pipeline.candidates) or kinds[-1] == TARGETS[pipeline.target].runs


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_pipeline_says_what_it_is_for_and_judges(path):
    gates = load_pipeline(path.stem).gates
    assert path.read_text(encoding="utf-8").startswith("# ")
    drops = [drop for drop in (gates.max_metric_drop, gates.max_relative_metric_drop) if drop is not None]
    assert drops
    assert max(drops) <= 0.02
    assert None not in (gates.min_agreement, gates.min_speedup, gates.max_size_ratio)


def test_every_pipeline_file_is_shipped_under_a_name_of_its_own():
    assert sorted(shipped_pipelines().values()) == SHIPPED
    assert set(TARGETS) <= set(shipped_pipelines())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_step_as_yaml_is_read_as_the_same_step(path):
    steps = load_pipeline(path.stem).stages
    assert tuple(parse_step(step.as_yaml(), where="again") for step in steps) == steps


def test_a_pipeline_of_ones_own_is_read_from_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("target: cpu\nstages: [export, {quantize_dynamic: {reduce_range: true}}]\n")
    pipeline = load_pipeline(str(path))
    assert pipeline.name == "mine"
    assert [step.stage for step in pipeline.stages] == ["export", "quantize_dynamic"]
    assert pipeline.stages[1].params.model_dump()["reduce_range"] is True
    assert pipeline.gates == Gates()


def test_gates_and_parameters_that_are_left_empty_are_the_defaults():
    pipeline = parse(gates=None, stages=["export", {"quantize_dynamic": None}])
    assert pipeline.gates == Gates()
    assert pipeline.stages[1] == parse_step("quantize_dynamic", where="")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": []}, "mine.yaml: unknown name 'stage'; did you mean 'stages'?"),
        ({"target": "cpus"}, "mine.yaml: target: unknown name 'cpus'; did you mean 'cpu'?"),
        (
            {"target": None},
            f"mine.yaml: target: unknown name 'None'; choose one of: {', '.join(sorted([*TARGETS, ANY_TARGET]))}",
        ),
        ({"stages": ["exprot"]}, "mine.yaml: stages: unknown name 'exprot'; did you mean 'export'?"),
        (
            {"stages": ["export", {"quantise_dynamic": {}}]},
            "mine.yaml: stages: unknown name 'quantise_dynamic'; did you mean 'quantize_dynamic'?",
        ),
        (
            {"stages": [{"export": {"opsett": 17}}]},
            "mine.yaml: export: unknown name 'opsett'; did you mean 'opset'?",
        ),
        (
            {"gates": {"min_speed_up": 2}},
            "mine.yaml: gates: unknown name 'min_speed_up'; did you mean 'min_speedup'?",
        ),
        (
            {"gates": {"speedup_over": "pytorch-fp23"}},
            "mine.yaml: gates: speedup_over: unknown name 'pytorch-fp23'; did you mean 'pytorch-fp32'?",
        ),
    ],
)
def test_a_misspelt_word_is_refused_with_the_nearest_right_one(changes, message):
    assert refusal(**changes) == message


@pytest.mark.parametrize("target", [["cpu"], {"name": "cpu"}])
def test_a_target_that_is_no_word_is_refused(target):
    assert refusal(target=target).startswith("mine.yaml: target: unknown name")


def test_an_unknown_word_far_from_all_others_is_refused_with_the_choice():
    assert refusal(stages=["zzz"]).endswith(f"choose one of: {', '.join(sorted(STAGES))}")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["fuse", "export"], "mine.yaml: 'fuse' takes onnx but comes after torch; reorder the stages"),
        (["export", "export"], "mine.yaml: 'export' takes torch but comes after onnx; reorder the stages"),
        (["quantize_dynamic"], "mine.yaml: 'quantize_dynamic' takes onnx but comes after torch; reorder the stages"),
    ],
)
def test_stages_whose_kinds_do_not_line_up_are_refused(stages, message):
    assert refusal(stages=stages) == message


@pytest.mark.parametrize("stages", [["prune", VOCABULARY, "export"], [VOCABULARY, VOCABULARY, "export"]])
def test_a_stage_that_has_to_come_first_is_refused_elsewhere(stages):
    with pytest.raises(RequestError, match="'prune_vocabulary' has to come before all other stages; make it the first"):
        parse_pipeline({"target": "cpu", "stages": stages}, name="x", where="x")


def test_a_pipeline_with_a_vocabulary_prunes_it_first_and_keeps_what_else_it_says():
    plain = parse_pipeline({"target": "cpu", "stages": ["export"]}, name="x", where="x")
    own = parse_pipeline(
        {"target": "cpu", "stages": [{"prune_vocabulary": {"corpus": "a.txt", "min_count": 3}}, "export"]},
        name="x",
        where="x",
    )
    asked = {"corpus": "b.txt"}
    found = [each.with_params("prune_vocabulary", asked, where="--vocabulary").stages for each in (plain, own)]
    assert [[step.stage for step in stages] for stages in found] == [["prune_vocabulary", "export"]] * 2
    assert [(str(stages[0].params.corpus), stages[0].params.min_count) for stages in found] == [
        ("b.txt", 1),
        ("b.txt", 3),
    ]


def test_stages_that_do_not_end_in_what_the_target_runs_are_refused(monkeypatch):
    import dataclasses

    monkeypatch.setitem(TARGETS, "cpu", dataclasses.replace(TARGETS["cpu"], runs="openvino"))
    expected = "mine.yaml: the stages end in onnx but the target runs openvino; add the stage that converts"
    assert refusal() == expected


@pytest.mark.parametrize("stages", [[], None, "export", {"export": {}}, 3])
def test_stages_that_are_no_list_or_none_are_refused(stages):
    assert refusal(stages=stages) == "mine.yaml: stages is not a list of stages; give at least 'export'"


@pytest.mark.parametrize("entry", [3, None, ["export"], {}, {"export": {}, "fuse": {}}])
def test_an_entry_that_is_no_stage_is_refused(entry):
    assert (
        refusal(stages=[entry]) == f"mine.yaml: '{entry}' is not a stage; write 'name' or 'name: {{parameter: value}}'"
    )


@pytest.mark.parametrize("params", [[1, 2], "opset", 17, True])
def test_parameters_that_are_no_mapping_are_refused(params):
    message = refusal(stages=[{"export": params}])
    assert message == f"mine.yaml: export: parameters are a mapping, not '{params}'; write 'parameter: value'"


@pytest.mark.parametrize("params", [0, False, "", []])
def test_parameters_that_are_empty_but_no_mapping_are_refused_too(params):
    assert "parameters are a mapping" in refusal(stages=[{"export": params}])


@pytest.mark.parametrize("gates", [0, False, [], "none", [1]])
def test_gates_that_are_no_mapping_are_refused(gates):
    assert refusal(gates=gates).startswith("mine.yaml: gates: parameters are a mapping")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"opset": 99}, "opset"),
        ({"opset": "new"}, "opset"),
        ({"tolerance": -1}, "tolerance"),
        ({"tolerance": float("inf")}, "tolerance"),
    ],
)
def test_a_parameter_with_a_wrong_value_is_refused_by_name_and_value(params, field):
    message = refusal(stages=[{"export": params}])
    assert message.startswith(f"mine.yaml: export: {field}: input should be ")
    assert message.endswith(f"was '{params[field]}'")


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        ("max_metric_drop", -0.1),
        ("max_relative_metric_drop", -1),
        ("min_agreement", 1.1),
        ("min_agreement", -0.1),
        ("min_speedup", 0),
        ("max_size_ratio", 0),
        ("max_memory_bytes", 0),
        ("confidence", 0.5),
        ("confidence", 1),
        ("min_speedup", "fast"),
        ("min_speedup", float("nan")),
        ("max_metric_drop", float("nan")),
        ("min_agreement", float("nan")),
        ("max_size_ratio", float("nan")),
        ("confidence", float("nan")),
        ("max_metric_drop", float("inf")),
    ],
)
def test_a_gate_with_a_wrong_value_is_refused_by_name_and_value(gate, value):
    message = refusal(gates={gate: value})
    assert message.startswith(f"mine.yaml: gates: {gate}: input should be ")
    assert message.endswith(f"was '{value}'")


@pytest.mark.parametrize(
    ("gates", "rule", "level"),
    [
        ({}, "not_worse", 0.95),
        ({"confidence": 0.9}, "proven", 0.9),
        ({"rule": "not_worse", "confidence": 0.9}, "not_worse", 0.9),
        ({"rule": "estimate"}, "estimate", 0.95),
    ],
)
def test_limits_name_their_rule_or_have_the_one_that_they_had(gates, rule, level):
    found = parse(gates={"max_metric_drop": 0.01, **gates}).gates
    assert (found.decided_by, found.level) == (rule, level)
    again = parse(gates=found.as_recorded()).gates
    assert (again.rule, again.confidence, again.on_accuracy().decided_by) == (rule, level, rule)


@pytest.mark.parametrize("rule", ["worse", "", 1, True])
def test_a_rule_that_is_none_is_refused(rule):
    assert refusal(gates={"rule": rule}).startswith("mine.yaml: gates: rule: input should be 'estimate', 'not_worse'")


def test_a_head_may_ask_for_proof_alone():
    pipeline = parse(gates={"max_metric_drop": 0.01}, head_gates={"fill-mask": {"rule": "proven"}})
    assert (pipeline.gates.decided_by, pipeline.for_head("fill-mask").gates.decided_by) == ("not_worse", "proven")


@pytest.mark.parametrize("shape", ["128", "1x", "0x128", "1x128x2", "one", "1×128", ""])
def test_a_speedup_at_what_is_no_shape_is_refused(shape):
    message = refusal(gates={"speedup_shape": shape})
    assert message.startswith(f"mine.yaml: gates: speedup_shape: '{shape}' is not a shape; write BATCHxTOKENS")


@pytest.mark.parametrize("reference", ["cpu-fp32", "pytorch-fp32"])
@pytest.mark.parametrize("shape", ["1x128", "8x384", "data"])
def test_a_speedup_over_a_measured_reference_at_a_shape_is_taken(reference, shape):
    gates = parse(gates={"min_speedup": 1.5, "speedup_over": reference, "speedup_shape": shape}).gates
    assert (gates.speedup_over, gates.speedup_shape) == (reference, shape)


@pytest.mark.parametrize("content", [None, [], "export", 3])
def test_a_pipeline_that_is_no_mapping_is_refused(content):
    with pytest.raises(RequestError, match=r"^mine\.yaml: a pipeline is a mapping; give it target, stages and gates$"):
        parse_pipeline(content, name="mine", where="mine.yaml")


def test_an_unknown_pipeline_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"^pipeline: unknown name 'cpu-fsed'; did you mean 'cpu-fused'\?$"):
        load_pipeline("cpu-fsed")


def test_a_file_that_is_absent_or_a_folder_is_refused(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    for name, reason in (("absent.yaml", "No such file or directory"), ("folder.yaml", "it is not a regular file")):
        with pytest.raises(RequestError) as caught:
            load_pipeline(str(tmp_path / name))
        assert str(caught.value) == f"{tmp_path / name}: cannot be read ({reason}); check --pipeline"


@pytest.mark.parametrize("content", [b"target: [cpu", b"a: b: c", b"\tx", b"x: !!python/name:os.system", b"a: \x00"])
def test_a_file_that_is_no_yaml_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        load_pipeline(str(path))
    assert str(caught.value).startswith(f"{path}: not YAML (")
    assert "\n" not in str(caught.value)


def test_pipelines_are_found_beside_the_package_in_a_checkout():
    folder = pipelines_folder()
    assert folder.name == "pipelines"
    assert Path(folder, "cpu.yaml").is_file()


def test_a_head_has_the_limits_of_all_but_for_its_own():
    gates = {"min_agreement": 0.95, "max_size_ratio": 0.3}
    pipeline = parse(gates=gates, head_gates={"fill-mask": {"min_agreement": 0.8}})
    ours, others = pipeline.for_head("fill-mask").gates, pipeline.for_head("text-classification").gates
    assert (ours.min_agreement, ours.max_size_ratio) == (0.8, 0.3)
    assert (others.min_agreement, others.max_size_ratio) == (0.95, 0.3)


@pytest.mark.parametrize(
    ("head_gates", "message"),
    [
        ({"fil-mask": {}}, "did you mean 'fill-mask'?"),
        ({"fill-mask": {"min_agrement": 0.8}}, "did you mean 'min_agreement'?"),
        ({"fill-mask": 0.8}, "limits are a mapping"),
        ([0.8], "not a mapping from heads to limits"),
    ],
)
def test_wrong_limits_of_a_head_are_refused(head_gates, message):
    assert message in refusal(head_gates=head_gates)


OPENVINO = ("export", "convert_openvino")


@pytest.mark.parametrize(
    ("target", "stages", "words"),
    [
        (
            "cpu",
            ["export", "fuse", "quantize_static"],
            "'quantize_static' cannot come after 'fuse', whose result is fused",
        ),
        ("cpu", [{"export": {"lean": True}}, "fuse"], "'fuse' cannot come after 'export', whose result is lean; set"),
        ("cpu", ["export", "fuse", "fuse"], "'fuse' cannot come after another 'fuse', whose result is fused; leave"),
        (
            "cpu",
            ["export", "fuse", "quantize_dynamic"],
            "whose result is fused with its embedding; set 'fuse: {embedding: fa",
        ),
        (
            "cpu",
            ["export", "quantize_dynamic", "fuse"],
            "'fuse' cannot come after 'quantize_dynamic', whose result is q",
        ),
        ("cpu", ["export", "quantize_dynamic", "quantize_static"], "whose result is quantized; leave one of them out"),
        ("cpu", ["quantize_neural_compressor", "quantize_dynamic"], "whose result is quantized; leave one of them out"),
        ("cpu", ["export", "convert_fp16", "quantize_dynamic"], "whose result is in FP16; leave out 'convert_fp16'"),
        ("cpu", ["export", "convert_fp16", "convert_fp16"], "'convert_fp16' cannot come after another 'convert_fp16'"),
        ("openvino", ["export", "quantize_dynamic", "convert_openvino"], "quantize with 'quantize_openvino' after it"),
        ("openvino", ["export", "convert_fp16", "convert_openvino"], "set 'convert_openvino: {weights: fp16}'"),
        ("openvino", [*OPENVINO, "quantize_openvino", "quantize_openvino"], "whose result is quantized; leave one"),
        (
            "openvino",
            [*OPENVINO, {"reshape_openvino": {"batch": 1}}, "quantize_openvino"],
            "put 'reshape_openvino' aft",
        ),
        ("openvino", [*OPENVINO, "attach_tokenizer", "quantize_openvino"], "put 'attach_tokenizer' last"),
        (
            "openvino",
            [*OPENVINO, "attach_tokenizer", {"reshape_openvino": {"batch": 1}}],
            "put 'attach_tokenizer' last",
        ),
        (
            "openvino",
            [*OPENVINO, {"reshape_openvino": {"batch": 1}}, "attach_tokenizer"],
            "leave out 'reshape_openvino'",
        ),
        (
            "cpu",
            ["prune_weights", "distill", "export"],
            "'distill' cannot come after 'prune_weights', whose result is s",
        ),
    ],
)
def test_an_order_in_which_a_stage_cannot_work_is_refused_with_what_to_do(target, stages, words):
    message = refusal(target=target, stages=stages)
    assert message.startswith("mine.yaml: '")
    assert words in message


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("cpu", ["export", {"fuse": {"embedding": False}}, "quantize_dynamic"]),
        ("cpu", ["export", "fuse", {"quantize_dynamic": {"embedding": False}}]),
        ("cpu", ["export", "quantize_static", "convert_fp16"]),
        ("openvino", ["export", "fuse", "convert_openvino", "quantize_openvino"]),
        ("openvino", [*OPENVINO, "quantize_openvino", {"reshape_openvino": {"batch": 1}}]),
        ("openvino", [*OPENVINO, "quantize_openvino", "attach_tokenizer"]),
        ("cpu", ["prune", "distill", "prune_weights", {"export": {"lean": True}}, "quantize_static"]),
    ],
)
def test_a_near_miss_of_a_wrong_order_is_taken(target, stages):
    assert len(parse(target=target, stages=stages).stages) == len(stages)


def test_parameters_of_a_stage_are_set_at_once_wherever_it_stands():
    plain = parse_pipeline({"target": "cpu", "stages": ["export", "quantize_static"]}, name="x", where="x")

    changed = plain.with_params("quantize_static", {"method": "percentile", "percentile": 99}, where="--set")

    assert changed.stages[0] == plain.stages[0]
    assert (changed.stages[1].params.method, changed.stages[1].params.percentile) == ("percentile", 99)


def test_a_limit_that_is_set_holds_for_every_head():
    limits = {"max_size_ratio": 0.3, "min_agreement": 0.9}
    heads = {"fill-mask": {"min_agreement": 0.8}}
    content = {"target": "cpu", "stages": ["export"], "gates": limits, "head_gates": heads}

    changed = parse_pipeline(content, name="x", where="x").with_params("gates", {"max_size_ratio": 0.5}, where="--set")

    assert [changed.for_head(head).gates.max_size_ratio for head in ("fill-mask", "multiple-choice")] == [0.5, 0.5]
    assert changed.for_head("fill-mask").gates.min_agreement == 0.8


def test_what_is_set_is_held_to_the_order_of_stages():
    plain = parse_pipeline({"target": "cpu", "stages": ["export", "fuse"]}, name="x", where="x")

    with pytest.raises(RequestError, match=r"^--set: 'fuse' cannot come after 'export', whose result is lean"):
        plain.with_params("export", {"lean": True}, where="--set")


@pytest.mark.parametrize(
    ("owner", "takes"),
    [("export", True), ("prune", False), ("prune_vocabulary", True), ("runtime", True), ("gates", True)],
)
def test_a_pipeline_takes_what_it_has_and_what_can_be_put_first(owner, takes):
    pipeline = parse_pipeline({"target": "cpu", "stages": ["export"]}, name="x", where="x")

    assert pipeline.takes(owner) == takes
