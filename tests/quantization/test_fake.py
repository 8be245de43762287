"""Rounding as INT8 does inside PyTorch: what comes out, what gradients pass, and where ranges come from."""

import numpy as np
import pytest
import torch
import transformers

from optimize.heads import HEADS
from optimize.quantization.fake import fake_quantized, find_sites, round_rows, round_tensor
from optimize.quantization.observers import make_observer
from optimize.training.batches import answer, make_batch

NAMES = sorted(HEADS)


def model_of(here):
    return getattr(transformers, here.head.auto_class).from_pretrained(here.reference.path).eval()


def grid(low, high):
    """Scale and zero point of u8 as the ONNX operators define them."""
    scale = (high - low) / 255
    return scale, np.rint(-low / scale)


def watched(model, here, features, method="minmax"):
    """Ranges of one batch of features."""
    batch = make_batch(features, pad_id=0)
    with fake_quantized(model, reads=here.head.reads, limit=127, method=method) as ranges, torch.no_grad():
        with ranges.watch():
            ranges.real = batch.real
            answer(model, batch, here.head)
        return ranges.bounds


@pytest.mark.parametrize("limit", [63, 127])
def test_rows_are_rounded_as_int8_with_a_scale_each(limit):
    weight = np.random.default_rng(0).normal(0, 0.05, (20, 33)).astype(np.float32)
    weight[3] = 0
    scales = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / np.float32(limit), np.float32(2.0**-126))
    expected = np.clip(np.rint(weight / scales), -limit, limit) * scales
    assert np.allclose(round_rows(torch.from_numpy(weight), limit).numpy(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-2.0, 0.0), (-1e-3, 40.0)])
def test_activations_are_rounded_as_u8_with_an_exact_zero_and_clipped_to_their_range(low, high):
    x = np.append(np.random.default_rng(0).normal(0, 2, 1000), 0.0).astype(np.float32)
    scale, zero = grid(low, high)
    expected = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    found = round_tensor(torch.from_numpy(x), low, high).numpy()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found[-1] == 0.0


def test_gradients_go_straight_through_the_rounding_and_not_through_the_clipping():
    weight, x = torch.randn(4, 8, requires_grad=True), torch.tensor([-5.0, 0.3, 0.7, 5.0], requires_grad=True)
    round_rows(weight, 127).sum().backward()
    round_tensor(x, -1.0, 1.0).sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 8))
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_layer_of_the_student_computes_what_int8_arithmetic_gives(context):
    here = context("token-classification")
    model, x = model_of(here), torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0))
    layer, name = model.distilbert.transformer.layer[1].ffn.lin1, "distilbert.transformer.layer.1.ffn.lin1"
    with fake_quantized(model, reads=here.head.reads, limit=127, method="minmax") as ranges, torch.no_grad():
        ranges.bounds = {name: (-2.5, 3.5)}
        found = layer(x).numpy()
    scale, zero = grid(-2.5, 3.5)
    weight = layer.weight.detach().numpy()
    scales = np.abs(weight).max(axis=1) / 127
    integers = (np.clip(np.rint(x.numpy() / scale) + zero, 0, 255) - zero) @ np.rint(weight / scales[:, None]).T
    assert np.allclose(found, integers * scale * scales + layer.bias.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("head", NAMES)
def test_queries_keys_and_values_share_a_range_where_they_read_the_same(head, context):
    here = context(head)
    sites = find_sites(model_of(here), reads=here.head.reads)
    own = here.head.reads == "first token"
    groups = [site.group for site in sites if "attention" in site.group and "layer.1" in site.group]
    assert len(set(groups)) == (3 if own else 2)
    assert [site.module.out_features for site in sites if site.module.out_features < 32] == []
    assert sum(site.leads for site in sites) == len({site.group for site in sites})
    assert sum(site.first_token for site in sites) == (4 if own else 0)


@pytest.mark.parametrize("head", NAMES)
def test_padding_never_enters_a_range(head, context):
    here = context(head)
    model = model_of(here)
    features = sorted(here.calibration.features, key=lambda feature: feature.tokens)
    short, long = features[0], features[-1]
    assert short.tokens < long.tokens
    apart, together = [watched(model, here, [one]) for one in (short, long)], watched(model, here, [short, long])
    for group, (low, high) in together.items():
        assert low == pytest.approx(min(bounds[group][0] for bounds in apart), abs=1e-4)
        assert high == pytest.approx(max(bounds[group][1] for bounds in apart), abs=1e-4)


def test_ranges_are_those_that_the_observers_of_static_quantization_find(context):
    here = context("token-classification")
    model, seen = model_of(here), make_observer("mse", percentile=99.99, symmetric=False)
    layer, features = model.distilbert.transformer.layer[1].ffn.lin2, here.calibration.features
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.update(inputs[0].numpy()))
    with torch.no_grad():
        for feature in features:
            answer(model, make_batch([feature], pad_id=0), here.head)
    hook.remove()
    low, high = watched(model, here, features, method="mse")["distilbert.transformer.layer.1.ffn.lin2"]
    assert (low, high) == pytest.approx((seen.range().low, seen.range().high), rel=0.01)
    assert high < seen.high


def test_taken_off_the_fake_quantization_leaves_nothing_behind(context):
    here = context("fill-mask")
    model, batch = model_of(here), make_batch(here.calibration.features[:2], pad_id=0)
    with torch.no_grad():
        before = answer(model, batch, here.head).rows
        watched(model, here, here.calibration.features[:2])
        after = answer(model, batch, here.head).rows
    assert torch.equal(before, after)
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())
