"""Sites and groups: every weight of every head is found under its own name, and patterns choose among them."""

import math

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimize.errors import StageError
from optimize.graphs.onnx import to_proto
from optimize.heads import HEADS
from optimize.quantization.sites import Group, Site, choose_groups, find_sites, group_sites, module_of, normalise
from optimize.quantization.variants import opener

NAMES = sorted(HEADS)
ALL_TOKENS = [
    "word_embeddings",
    "position_embeddings",
    "layer.0.attention.q_lin+k_lin+v_lin",
    "layer.0.attention.out_lin",
    "layer.0.ffn.lin1",
    "layer.0.ffn.lin2",
    "layer.1.attention.q_lin+k_lin+v_lin",
    "layer.1.attention.out_lin",
    "layer.1.ffn.lin1",
    "layer.1.ffn.lin2",
]
FIRST_TOKEN = [*ALL_TOKENS[:6], "layer.1.attention.k_lin+v_lin", "layer.1.attention.q_lin", *ALL_TOKENS[7:]]
EXPECTED = {
    "feature-extraction": ALL_TOKENS,
    "fill-mask": ["word_embeddings+vocab_projector", *ALL_TOKENS[1:], "vocab_transform"],
    "multiple-choice": [*FIRST_TOKEN, "pre_classifier", "classifier"],
    "question-answering": [*ALL_TOKENS, "qa_outputs"],
    "text-classification": [*FIRST_TOKEN, "pre_classifier", "classifier"],
    "token-classification": [*ALL_TOKENS, "classifier"],
}


def normalised(here, apply):
    return normalise(apply(here, "export").graph())


def site(name, reads="x", weight=None, **others):
    return Site(name, "/" + name, reads, weight or name + ".weight", 10, **others)


@pytest.mark.parametrize("head", NAMES)
def test_the_groups_of_every_head_have_the_checkpoints_names(head, context, apply):
    groups = group_sites(find_sites(normalised(context(head), apply)))
    assert [group.name for group in groups] == EXPECTED[head]


@pytest.mark.parametrize("head", NAMES)
def test_no_weight_is_overlooked_and_each_counts_once(head, context, apply):
    model = normalised(context(head), apply)
    groups = group_sites(find_sites(model))
    weights = [each for each in model.graph.initializers.values() if each.dtype.is_floating_point()]
    matrices = {each.name: math.prod(each.shape) for each in weights if len(each.shape) == 2}
    assert {each.weight for group in groups for each in group.sites} == set(matrices)
    assert sum(group.parameters for group in groups) == sum(matrices.values())


@pytest.mark.parametrize("head", NAMES)
def test_a_normalised_graph_computes_the_same_without_gemm_or_aliases(head, context, apply, make_feed, difference):
    here = context(head)
    model, feed = normalised(here, apply), make_feed(here, "holed")
    before, after = apply(here, "export").open(here), opener(here)(model)
    assert difference(here, before, after, feed) < 1e-6
    assert not {"Gemm", "Identity"} & {node.op_type for node in model.graph}


def test_normalising_twice_changes_nothing_more(context, apply):
    model = normalised(context("text-classification"), apply)
    once = to_proto(model).SerializeToString(deterministic=True)
    assert to_proto(normalise(model)).SerializeToString(deterministic=True) == once


def test_an_identity_that_is_an_output_stays():
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "alias", [], [output], [weight])
    model = normalise(onnx_ir.from_proto(helper.make_model(graph)))
    assert [node.op_type for node in model.graph] == ["Identity"]


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/distilbert/transformer/layer.0/ffn/lin1/MatMul", "layer.0.ffn.lin1"),
        ("/transformer/layer.5/attention/q_lin/MatMul", "layer.5.attention.q_lin"),
        ("/distilbert/embeddings/word_embeddings/Gather", "word_embeddings"),
        ("/embeddings/position_embeddings/Gather", "position_embeddings"),
        ("/classifier/Gemm_MatMul", "classifier"),
        ("vocab_projector/MatMul", "vocab_projector"),
        ("alone", "alone"),
    ],
)
def test_a_node_is_called_after_its_module(node, module):
    assert module_of(node) == module


def test_sites_that_read_one_tensor_or_one_table_are_one_group():
    sites = [
        site("words", "table", "table", looks_up=True),
        site("layer.0.q", "hidden"),
        site("layer.0.v", "hidden"),
        site("layer.0.out", "values"),
        site("projector", "last", "table", tied=True),
    ]
    groups = group_sites(sites)
    assert [group.name for group in groups] == ["words+projector", "layer.0.q+v", "layer.0.out"]
    assert [group.parameters for group in groups] == [10, 20, 10]


GROUPS = [
    Group("word_embeddings", (site("word_embeddings", looks_up=True),)),
    Group("layer.0.q_lin+v_lin", (site("layer.0.q_lin"), site("layer.0.v_lin"))),
    Group("layer.0.lin1", (site("layer.0.lin1"),)),
    Group("layer.1.lin1", (site("layer.1.lin1"),)),
]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (["*"], [], [0, 1, 2, 3]),
        (["layer.*"], [], [1, 2, 3]),
        (["*.v_lin"], [], [1]),
        (["layer.0.q_lin+v_lin"], [], [1]),
        (["*"], ["*embeddings"], [1, 2, 3]),
        (["*"], ["*.q_lin"], [0, 2, 3]),
        (["layer.0.*", "layer.1.lin1"], ["*lin1"], [1]),
        (["layer.[01].lin1"], ["layer.1.*"], [2]),
    ],
)
def test_patterns_choose_whole_groups_by_the_names_of_their_sites(include, exclude, chosen):
    found = choose_groups(GROUPS, include, exclude, stage="quantize_static")
    assert found == [GROUPS[index] for index in chosen]


@pytest.mark.parametrize(
    ("include", "exclude", "pattern", "near"),
    [
        (["layer.0.lin2"], [], "layer.0.lin2", "layer.0.lin1"),
        (["*"], ["word_embedding"], "word_embedding", "word_embeddings"),
        (["*", "LAYER.1.LIN1"], [], "LAYER.1.LIN1", ""),
        (["*"], [""], "", "word_embeddings"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_a_name_near_it(include, exclude, pattern, near):
    expected = rf"^quantize_static: pattern '{pattern}' matches no operator; names look like '{near}"
    with pytest.raises(StageError, match=expected):
        choose_groups(GROUPS, include, exclude, stage="quantize_static")


@pytest.mark.parametrize(("include", "exclude"), [(["*"], ["*"]), (["layer.*"], ["*lin1", "*.q_lin"]), ([], [])])
def test_patterns_that_leave_nothing_are_refused(include, exclude):
    with pytest.raises(StageError, match=r"^quantize_static: the patterns leave no operator to quantize; widen"):
        choose_groups(GROUPS, include, exclude, stage="quantize_static")
