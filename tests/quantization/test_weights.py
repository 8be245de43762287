"""Scales of INT8 weights: as fine as can be, and where sums are 16 bits wide never so fine that one overflows."""

import itertools

import numpy as np
import pytest

from optimize.quantization.weights import BLOCK, PAIR_LIMIT, channel_scales, quantize, worst_pairs
from optimize.stages import STAGES

WIDEST_ACTIVATION = 255
INT16 = np.iinfo(np.int16)


def drawn(kind, rows=48, columns=12, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "equal":
        return np.full((rows, columns), 0.3, np.float32)
    if kind == "lonely":
        weight = rng.normal(0, 0.01, (rows, columns))
        weight[::BLOCK] = rng.normal(0, 1.0, (len(weight[::BLOCK]), columns))
        return weight.astype(np.float32)
    if kind == "one sign":
        return rng.uniform(0.5, 1.0, (rows, columns)).astype(np.float32) * -1
    return (rng.standard_t(3, (rows, columns)) * 10.0 ** rng.uniform(-4, 3, columns)).astype(np.float32)


KINDS = ["equal", "lonely", "one sign", "heavy tails"]


def added_in_16_bits(activations, weight):
    """x [K] times W [K, N] as vpmaddubsw does: neighbouring products added and saturated, the rest in 32 bits."""
    products = activations.astype(np.int32)[:, None] * weight.astype(np.int32)
    pairs = products.reshape(-1, 2, weight.shape[1]).sum(axis=1)
    return np.clip(pairs, INT16.min, INT16.max).sum(axis=0)


def worst_activations(weight):
    """Per column N the activations [K] that push every sum as far as it goes: [2, N, K], upwards and downwards."""
    return np.stack([np.where(weight > 0, 255, 0).T, np.where(weight < 0, 255, 0).T])


def shuffled(weight):
    """W with the rows of each block in every order, since which two are added is the kernel's own affair."""
    blocks = weight.reshape(-1, BLOCK, weight.shape[1])
    for order in itertools.permutations(range(BLOCK)):
        yield blocks[:, list(order)].reshape(weight.shape)


def is_exact(weight):
    """Whether 16 bits are wide enough for W, whatever the activations and the order within a block."""
    return all(
        added_in_16_bits(x, rows[:, [column]]) == x.astype(np.int64) @ rows[:, column]
        for rows in shuffled(weight.astype(np.int64))
        for each in worst_activations(rows)
        for column, x in enumerate(each)
    )


def test_the_emulation_saturates_where_the_instruction_does():
    assert added_in_16_bits(np.array([255, 255]), np.array([[127], [127]])).tolist() == [INT16.max]
    assert added_in_16_bits(np.array([255, 255]), np.array([[-127], [-127]])).tolist() == [INT16.min]
    assert added_in_16_bits(np.array([255, 255, 0, 0]), np.array([[127], [1], [0], [0]])).tolist() == [255 * 128]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_sum_of_two_products_overflows_16_bits(kind, per_channel):
    weight = drawn(kind)
    rounded = quantize(weight, channel_scales(weight, per_channel=per_channel, reduce_range=True))
    assert is_exact(rounded)
    assert WIDEST_ACTIVATION * int(worst_pairs(rounded).max()) <= INT16.max


@pytest.mark.parametrize("kind", ["equal", "one sign", "heavy tails"])
def test_plain_8_bits_would_overflow_so_holding_back_is_not_idle(kind):
    weight = drawn(kind)
    assert not is_exact(quantize(weight, channel_scales(weight, per_channel=True, reduce_range=False)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_is_the_least_that_fits(kind):
    weight = drawn(kind)
    scales = channel_scales(weight, per_channel=True, reduce_range=True)
    finer = quantize(weight, scales * np.float32(0.98))
    too_fine = worst_pairs(finer) > PAIR_LIMIT
    clipped = np.abs(weight).max(axis=0) / (scales * 0.98) > 127.5
    assert (too_fine | clipped).all()


def test_large_weights_with_small_neighbours_keep_nearly_8_bits():
    scales = channel_scales(drawn("lonely"), per_channel=True, reduce_range=True)
    full = channel_scales(drawn("lonely"), per_channel=True, reduce_range=False)
    assert (scales <= full * 1.05).all()
    equal = drawn("equal")
    assert (quantize(equal, channel_scales(equal, per_channel=True, reduce_range=True)) == 64).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_off_by_half_a_step_at_most(kind, reduce_range, per_channel):
    weight = drawn(kind)
    scales = channel_scales(weight, per_channel=per_channel, reduce_range=reduce_range)
    rounded = quantize(weight, scales)
    assert (scales.dtype, scales.shape, rounded.dtype) == (np.float32, (12,), np.int8)
    assert (np.abs(rounded * scales.astype(np.float64) - weight) <= 0.5001 * scales).all()
    assert len(set(scales.tolist())) == (1 if not per_channel or kind == "equal" else 12)


@pytest.mark.parametrize("factor", [2.0**-10, 0.25, 512.0])
def test_weights_times_a_power_of_two_have_the_same_integers(factor):
    weight = drawn("heavy tails")
    both = (weight, weight * np.float32(factor))
    first, second = (quantize(each, channel_scales(each, per_channel=True, reduce_range=True)) for each in both)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("reduce_range", [True, False])
@pytest.mark.parametrize("ulps", [0, 1, 64, 96, 127, 200, 2**20])
def test_weights_of_nothing_or_next_to_nothing_have_a_normal_scale(ulps, reduce_range):
    weight = np.full((BLOCK, 2), ulps, np.uint32).view(np.float32)
    scales = channel_scales(weight, per_channel=True, reduce_range=reduce_range)
    assert (scales >= np.finfo(np.float32).tiny).all()
    assert (np.abs(quantize(weight, scales) * scales - weight) <= np.finfo(np.float32).tiny * 128).all()


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 3), (4, 7), (5, 7), (6, 11), (9, 15)])
def test_rows_that_fill_no_block_count_with_zeros_behind_them(rows, expected):
    weight = -np.arange(1, rows + 1, dtype=np.int8)[:, None]
    assert worst_pairs(weight).tolist() == [expected]


def test_signs_are_not_mixed_and_the_largest_pair_of_a_block_counts():
    weight = np.array([[100, -128], [-100, 127], [20, -128], [3, 1]], dtype=np.int8)
    assert worst_pairs(weight).tolist() == [120, 256]


def test_worst_pairs_are_those_of_trying_every_pair():
    weight = np.random.default_rng(3).integers(-127, 128, (24, 9)).astype(np.int8)
    tried = [
        np.abs(np.where(np.sign(a) == np.sign(b), a + b, np.maximum(np.abs(a), np.abs(b))))
        for block in weight.astype(int).reshape(-1, BLOCK, 9)
        for a, b in itertools.combinations(block, 2)
    ]
    assert worst_pairs(weight).tolist() == np.max(tried, axis=0).tolist()


@pytest.mark.parametrize(
    "stage",
    ["quantize_dynamic", "quantize_static", "quantize_neural_compressor", "quantize_openvino", "train_quantized"],
)
@pytest.mark.parametrize("asked", ["auto", True, False])
def test_every_stage_that_rounds_to_int8_calls_a_reduced_range_the_same(stage, asked):
    params = STAGES[stage].params.model_validate({"reduce_range": asked})
    assert params.model_dump()["reduce_range"] == asked
    assert STAGES[stage].params().model_dump()["reduce_range"] == "auto"
