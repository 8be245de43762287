from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from report.conftest import REQUEST, REVERTED, SOURCE, STAGES, document, make_manifest, stages_with

from optimize.heads import HEADS
from optimize.report.card import card_data, eval_results, render_card
from optimize.report.pictures.draw import Picture


def split(card: str) -> tuple[dict, str]:
    """The card's front matter, read as YAML, and its text."""
    start, front, text = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), text


def for_head(head: str):
    return make_manifest(request={**REQUEST, "head": head})


def test_a_folder_of_this_machine_appears_by_its_name_alone():
    request = {**REQUEST, "model": "/home/ada/models/mine", "data": "/home/ada/reviews", "data_revision": None}
    source = {**SOURCE, "kind": "folder", "id": "mine", "revision": None}

    card = render_card(make_manifest(request=request, source=source))

    assert "ada" not in card
    assert split(card)[0]["model-index"][0]["results"][0]["dataset"]["name"] == "reviews"


def test_the_front_matter_says_what_the_hub_asks_for(manifest):
    front, _ = split(render_card(manifest))

    assert front["pipeline_tag"] == "text-classification"
    assert front["library_name"] == "optimum"
    assert front["base_model"] == "someone/distilbert-sst2"
    assert {"onnx", "distilbert"} <= set(front["tags"])


def test_the_front_matter_holds_the_measured_score(manifest):
    (entry,) = split(render_card(manifest))[0]["model-index"]
    (result,) = entry["results"]

    assert entry["name"] == "someone/distilbert-sst2"
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"]["name"] == "nyu-mll/glue"
    assert result["dataset"] == {
        "name": "nyu-mll/glue",
        "type": "nyu-mll/glue",
        "config": "sst2",
        "split": "validation",
        "revision": "f00dcafe",
    }
    assert result["metrics"] == [{"type": "accuracy", "value": 0.895, "name": "accuracy"}]


def test_huggingface_hub_reads_the_front_matter_as_it_was_meant(manifest, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(render_card(manifest), encoding="utf-8")

    read = ModelCardData(**metadata_load(path))

    assert read.to_dict() == card_data(manifest).to_dict()
    (result,) = ModelCard.load(path).data.eval_results
    assert (result.task_type, result.metric_value) == ("text-classification", 0.895)


@pytest.mark.parametrize(("ours", "hubs"), [("top1_accuracy", "accuracy"), ("spearman", "spearmanr"), ("f1", "f1")])
def test_a_metric_goes_by_the_hubs_name_for_it_and_shows_ours(ours, hubs):
    measured = document()["measurements"]
    measured[1]["metric"]["name"] = ours

    (result,) = card_data(make_manifest(measurements=measured)).eval_results

    assert (result.metric_type, result.metric_name) == (hubs, ours)


def test_int8_is_said_to_be_a_quantized_form_of_its_base_model(manifest):
    measured = document()["measurements"]
    measured[1]["size"]["by_dtype"] = {"int8": 60_000_000}

    quantized, plain = card_data(make_manifest(measurements=measured)), card_data(manifest)

    assert quantized["base_model_relation"] == "quantized"
    assert "int8" in quantized.tags
    assert "base_model_relation" not in plain
    assert "int8" not in plain.tags


@pytest.mark.parametrize(("revision", "datasets"), [("f00dcafe", ["nyu-mll/glue"]), (None, None)])
def test_data_that_a_stage_trained_on_are_named_where_they_are_the_hubs(revision, datasets):
    splits = document()["data"]
    request = {**REQUEST, "data_revision": revision}

    trained = make_manifest(request=request, data={**splits, "training": splits["calibration"]})

    assert card_data(trained).datasets == datasets
    assert card_data(make_manifest(request=request)).datasets is None


def test_an_address_in_a_data_set_of_the_hub_is_of_that_data_set():
    request = {**REQUEST, "data": "hf://datasets/nyu-mll/glue/sst2", "data_revision": "f00dcafe"}
    splits = document()["data"]

    made = make_manifest(request=request, data={**splits, "training": splits["calibration"]})

    assert card_data(made).datasets == ["nyu-mll/glue"]
    assert card_data(made).eval_results[0].dataset_type == "nyu-mll/glue"


def test_a_local_checkpoint_is_no_base_model_on_the_hub():
    front, text = split(render_card(make_manifest(source={**SOURCE, "kind": "folder", "revision": None})))

    assert "base_model" not in front
    assert "at revision" not in text


def test_a_score_that_was_not_measured_is_not_made_up():
    measured = document()["measurements"]
    measured[1]["metric"] = None

    front, text = split(render_card(make_manifest(measurements=measured)))

    assert "model-index" not in front
    assert "Accuracy was not measured." in text


def test_the_text_says_what_was_lost_and_gained(manifest):
    _, text = split(render_card(manifest))

    assert "accuracy 0.8950 against 0.9000 in FP32: a drop of +0.0050 (+0.56% relative)" in text
    assert "95% interval -0.0050 to +0.0150" in text
    assert "Size 60.0 MB against 200.0 MB." in text
    assert "export → quantize_dynamic" in text
    assert "- min_speedup: speed-up 3.00x" in text


def blocks(text: str) -> list[str]:
    return [part.split("```")[0] for part in text.split("```python\n")[1:]]


@pytest.mark.parametrize("head", HEADS)
def test_the_usage_needs_a_runtime_alone_and_answers(head, context, apply, capsys):
    _, text = split(render_card(for_head(head)))
    built = apply(context(head), "export")

    ours, own, *_ = blocks(text)
    exec(compile(own.replace("PATH", str(built.artifact.path)), "card", "exec"), {})

    assert 'optimize.load("PATH")' in ours
    assert "onnxruntime" in own
    assert capsys.readouterr().out.startswith("[")


@pytest.mark.parametrize("head", HEADS)
def test_the_usage_names_optimums_class_as_well(head):
    _, text = split(render_card(for_head(head)))

    name = HEADS[head].auto_class.replace("AutoModel", "ORTModel")
    assert f"from optimum.onnxruntime import {name if 'For' in name else 'ORTModelForFeatureExtraction'}\n" in text
    assert "With optimum-onnx, which goes with transformers 4.57" in text


def for_openvino(head: str):
    *others, last = STAGES
    artifact = {**last["artifact"], "kind": "openvino"}
    return make_manifest(request={**REQUEST, "head": head}, stages=[*others, {**last, "artifact": artifact}])


@pytest.mark.parametrize("head", sorted(set(HEADS) - {"multiple-choice"}))
def test_the_usage_of_an_openvino_model_names_optimum_intels_class(head):
    front, text = split(render_card(for_openvino(head)))

    name = HEADS[head].auto_class.replace("AutoModel", "OVModel")
    assert f"from optimum.intel import {name if 'For' in name else 'OVModelForFeatureExtraction'}\n" in text
    assert "openvino" in front["tags"]
    assert "onnx" not in front["tags"]


def test_the_usage_of_choices_in_openvino_runs_without_a_class_for_them(context, apply, capsys):
    here = context("multiple-choice")
    built = apply(here, "convert_openvino", apply(here, "export"))
    _, text = split(render_card(for_openvino("multiple-choice")))
    code = blocks(text)[1].replace("PATH", str(built.artifact.path))

    exec(compile(code, "card", "exec"), {})

    assert capsys.readouterr().out.startswith("[[")
    assert "optimum" not in text.split("## Use")[1].split("## ")[0]


def test_the_card_names_what_was_left_in_float(manifest):
    card = render_card(make_manifest(stages=stages_with(reverted=REVERTED)))

    assert "Left in float to keep accuracy: `classifier`." in card
    assert "Left in float" not in render_card(manifest)


def test_the_card_shows_the_pictures_that_it_is_given(manifest):
    pictures = [Picture("overview.png", "a", b""), Picture("sensitivity.png", "b", b"")]

    card = render_card(manifest, pictures)

    assert card.index("![a](overview.png)") < card.index("![b](sensitivity.png)") < card.index("## Use")
    assert "![" not in render_card(manifest)


def test_the_card_is_a_function_of_the_manifest_alone(manifest, no_files):
    assert render_card(manifest) == render_card(make_manifest())


STATED = {"license": "other", "license_name": "mine", "language": ["en", "de"], "datasets": ["stanfordnlp/sst2"]}


def test_the_front_matter_says_what_the_source_stated(tmp_path):
    made = make_manifest(source={**SOURCE, "card": STATED})
    path = tmp_path / "README.md"
    path.write_text(render_card(made), encoding="utf-8")

    data = ModelCard.load(path).data

    assert (data.license, data.license_name, data.language) == ("other", "mine", ["en", "de"])
    assert data.datasets == ["stanfordnlp/sst2"]


def test_a_source_that_states_nothing_has_nothing_said_of_it(manifest):
    front, _ = split(render_card(manifest))

    assert not {"license", "language", "datasets"} & set(front)


def quantized(reduced: bool | None, **facts):
    measured = document()["measurements"]
    measured[1]["size"]["by_dtype"] = {"int8": 60_000_000}
    *others, last = STAGES
    stated = {**last["facts"], **({} if reduced is None else {"reduce_range": reduced}), **facts}
    return make_manifest(measurements=measured, stages=[*others, {**last, "facts": stated}])


def test_full_8_bit_weights_are_said_to_be_wrong_without_vnni():
    _, text = split(render_card(quantized(False)))

    assert "**For CPUs with VNNI or AMX alone.**" in text
    assert "avx512_vnni" in text
    assert "It was built and measured on Imagined CPU (avx2)" in text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (quantized(True), "no 16-bit sum overflows, so it is right on every CPU"),
        (quantized(False, mode="weights"), "do not depend on what a CPU has"),
        (make_manifest(), "do not depend on what a CPU has"),
    ],
)
def test_other_models_are_right_on_every_cpu(made, said):
    _, text = split(render_card(made))

    assert said in text
    assert "VNNI or AMX alone" not in text


def test_the_text_says_how_the_model_was_made_and_what_was_not_judged(manifest):
    _, text = split(render_card(manifest))

    assert "1. `export`: `opset=17`\n2. `quantize_dynamic`: `per_channel=True`" in text
    assert "libraries were onnx 1.23.2" in text
    assert "of up to 128 tokens" in text
    assert "What else is in a batch changes its outputs, by up to 0.25" in text


def test_a_layout_says_itself_how_the_model_is_used(manifest):
    _, text = split(render_card(manifest, use="Ask Triton."))

    assert "Ask Triton." in text
    assert "InferenceSession" not in text


def test_the_hub_reads_the_score_as_an_evaluation_result(manifest):
    hub = pytest.importorskip("huggingface_hub", minversion="1.4")
    ((name, content),) = eval_results(manifest).items()

    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(content))

    assert name == "nyu-mll-glue-sst2.yaml"
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("nyu-mll/glue", "sst2", "f00dcafe")
    assert (entry.value, entry.notes) == (0.895, "accuracy on 1,000 examples of the split validation")
    assert hub.eval_result_entries_to_yaml([entry]) == yaml.safe_load(content)


def test_data_that_are_not_the_hubs_give_no_evaluation_result():
    assert eval_results(make_manifest(request={**REQUEST, "data_revision": None})) == {}
