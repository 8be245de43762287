"""Fixed and bounded axes: what a session pads, splits and cuts, and what it refuses."""

import numpy as np
import pytest
from libraries import needs
from pydantic import ValidationError

from optimize.errors import RequestError, StageError
from optimize.heads import HEADS
from optimize.planning import Options, make_plan
from optimize.runtimes.openvino import axes_of, read_model
from optimize.stages.reshape_openvino import Params, max_tokens

NAMES = sorted(HEADS)
FIXED = {"batch": 2, "tokens": 32}


def converted(context, apply, head):
    return apply(context(head), "convert_openvino", apply(context(head), "export"))


def reshaped(context, apply, head, **params):
    return apply(context(head), "reshape_openvino", converted(context, apply, head), **params)


@pytest.mark.parametrize("kind", ["full", "left-padded", "holed"])
@pytest.mark.parametrize("head", NAMES)
def test_a_fixed_model_answers_feeds_of_any_shape_that_fits_as_the_dynamic_one(
    head, kind, context, apply, make_feed, difference
):
    here = context(head)
    params = {**FIXED, **({"choices": 4} if head == "multiple-choice" else {})}
    fixed, dynamic = reshaped(context, apply, head, **params).open(here), converted(context, apply, head).open(here)
    for batch, tokens in ((1, 9), (2, 32), (5, 21)):
        feed = make_feed(here, kind, batch=batch, tokens=tokens)
        assert {name: array.shape for name, array in fixed(feed).items()} == {
            name: array.shape for name, array in dynamic(feed).items()
        }
        assert difference(here, fixed, dynamic, feed) < 2e-5


def test_axes_are_what_was_asked_for_and_the_others_stay_dynamic(context, apply):
    built = reshaped(context, apply, "token-classification", tokens="4..24")
    axes = axes_of(read_model(built.artifact.path))
    assert (axes.rank, axes.least, axes.most) == (2, {1: 4}, {1: 24})
    assert built.facts["shape"] == "[?,4..24]"


def test_a_text_that_is_longer_than_the_model_takes_is_refused(context, apply, make_feed):
    here = context("text-classification")
    session = reshaped(context, apply, "text-classification", tokens="1..24").open(here)
    with pytest.raises(StageError, match="a text has 25 tokens and the model takes 24; give --max-tokens 24"):
        session(make_feed(here, tokens=25))


def test_more_choices_than_the_model_takes_are_refused(context, apply, make_feed):
    here = context("multiple-choice")
    session = reshaped(context, apply, "multiple-choice", choices=4, tokens=24).open(here)
    feed = {name: np.repeat(array, 3, axis=1) for name, array in make_feed(here, tokens=24).items()}
    with pytest.raises(StageError, match="a row has 6 choices and the model takes 4"):
        session(feed)


@pytest.mark.parametrize(
    ("head", "params", "words"),
    [
        ("text-classification", {}, "no axis is given"),
        ("text-classification", {"choices": 2}, "the model has no axis of choices"),
    ],
)
def test_axes_that_make_no_sense_are_refused(head, params, words, context, apply):
    with pytest.raises(StageError, match=rf"^reshape_openvino: {words}"):
        reshaped(context, apply, head, **params)


@pytest.mark.parametrize("axis", ["0", "-1", "1..", "8..8", "9..8", "many", 0, 1.5])
def test_a_size_that_is_none_is_refused(axis):
    with pytest.raises(ValidationError):
        Params(tokens=axis)


@pytest.mark.parametrize(("tokens", "expected"), [(None, None), (128, 128), ("1..384", 384)])
def test_the_longest_text_is_the_upper_bound(tokens, expected):
    assert max_tokens(Params(tokens=tokens)) == expected


def test_a_model_with_fixed_axes_is_not_quantized_afterwards(context, apply):
    here = context("text-classification")
    with pytest.raises(StageError, match="axes are fixed or bounded already; put 'reshape_openvino' after it"):
        apply(here, "quantize_openvino", reshaped(context, apply, "text-classification", tokens=32))


PIPELINE = "target: openvino\nstages: [export, convert_openvino, reshape_openvino: {tokens: 1..96}]\n"


@needs("openvino")
def test_texts_are_cut_to_what_the_pipeline_fixes_and_longer_ones_cannot_be_asked_for(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(PIPELINE, encoding="utf-8")

    assert make_plan(Options(pipeline=str(path))).longest == 96
    assert make_plan(Options(pipeline=str(path), max_tokens=64)).request.max_tokens == 64
    with pytest.raises(RequestError, match="--max-tokens: 97 is more than the 96 that the pipeline fixes"):
        make_plan(Options(pipeline=str(path), max_tokens=97))
