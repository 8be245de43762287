"""Which groups go back to float: the search alone, on made-up models whose losses are known."""

import dataclasses
from types import SimpleNamespace

import pytest

from optimize.errors import StageError
from optimize.evaluate.judge import Judge, Loss
from optimize.gates import Gates
from optimize.quantization import fallback
from optimize.quantization.fallback import fall_back
from optimize.quantization.sensitivity import Cost
from optimize.quantization.sites import Group, Site

LIMIT = 0.1


def group(name, parameters=100):
    return Group(name, (Site(name, name, "x", name + ".weight", parameters),))


def loss_of(damage):
    return Loss(1.0 - damage, damage, damage, 1.0 - damage, damage, 0.0)


class Made:
    """Variants whose damage is a function of the names still quantized; each one assessed is kept."""

    def __init__(self, groups, damage, limits=None):
        self.groups, self.damage, self.seen = tuple(groups), damage, []
        limits = limits or Gates(max_relative_metric_drop=LIMIT)
        self.judge = SimpleNamespace(limits=limits, doubt=0.0)
        self.judge.excess = lambda loss: Judge.excess(self.judge, loss)
        self.judge.allows = lambda loss: Judge.allows(self.judge, loss)

    def without(self, left):
        return frozenset(each.name for each in self.groups) - {each.name for each in left}

    def assess(self, quantized):
        self.seen.append(quantized)
        return loss_of(self.damage(quantized))


def additive(damages):
    return lambda quantized: sum(damages[name] for name in quantized)


def search(silent, damages, *, parameters=None, saved=None, together=None, share=1.0, limits=None):
    """Groups with damages alone, what they do together, and what each saves in microseconds."""
    groups = [group(name, (parameters or {}).get(name, 100)) for name in damages]
    variants = Made(groups, together or additive(damages), limits)
    costs = [Cost(each, loss_of(damages[each.name]), (saved or {}).get(each.name, 50.0)) for each in groups]
    return fall_back(variants, costs, max_float_share=share, progress=silent), variants


def left(outcome):
    return [step.group.name for step in outcome.steps]


def test_the_group_that_does_the_damage_is_found_at_once(silent):
    outcome, variants = search(silent, {"a": 0.01, "planted": 0.5, "b": 0.02, "c": 0.03})
    assert left(outcome) == ["planted"]
    assert outcome.loss.divergence == pytest.approx(0.06)
    assert outcome.steps[0].divergence_removed == pytest.approx(0.5)
    assert outcome.tried == len(variants.seen) == 2


def test_limits_that_are_met_as_it_is_reverts_nothing(silent):
    outcome, _ = search(silent, {"a": 0.05, "b": 0.04})
    assert (outcome.steps, outcome.tried) == ((), 1)


def test_of_equal_damages_the_one_that_costs_less_time_goes(silent):
    outcome, _ = search(
        silent, {"slow": 0.2, "fast": 0.2}, saved={"slow": 400.0, "fast": 20.0}, together=lambda q: 0.1 * len(q)
    )
    assert left(outcome) == ["fast"]
    assert outcome.steps[0].lost_us == 20.0


def test_a_small_damage_at_no_cost_goes_before_a_large_one_at_a_high_one(silent):
    outcome, _ = search(silent, {"free": 0.06, "dear": 0.1}, saved={"free": -30.0, "dear": 300.0})
    assert left(outcome) == ["free"]


def test_after_a_disappointment_groups_are_measured_in_company(silent):
    def together(quantized):
        return 0.9 * ("hidden" in quantized) + 0.01 * len(quantized)

    alone = {"loud": 0.9, "also loud": 0.8, "hidden": 0.3, **{f"quiet {n}": 0.01 for n in range(20)}}
    limits = Gates(max_relative_metric_drop=0.25)
    outcome, _ = search(silent, alone, together=together, limits=limits)
    assert left(outcome) == ["hidden"]
    assert outcome.tried <= 2 + 2 * fallback.AGAIN


def test_a_disappointing_group_does_not_take_the_room_of_one_that_helps(silent):
    def together(quantized):
        return 0.05 * ("loud" in quantized) + 0.9 * ("helpful" in quantized)

    outcome, _ = search(silent, {"loud": 0.9, "helpful": 0.5}, together=together, share=0.5)
    assert left(outcome) == ["helpful"]


def test_what_the_others_made_unnecessary_is_quantized_again_the_slowest_first(silent):
    def together(quantized):
        return 0.0 if not {"b", "c"} & quantized else 0.1 * len(quantized) + 0.1

    alone = {"a": 0.5, "b": 0.45, "c": 0.4, "d": 0.0}
    outcome, _ = search(silent, alone, together=together, saved={"a": 50.0, "b": 50.0, "c": 49.0})
    assert sorted(left(outcome)) == ["b", "c"]
    assert outcome.loss.divergence == 0.0


def test_of_two_that_would_do_the_slower_one_is_quantized_again(silent):
    def together(quantized):
        return {2: 0.3, 1: 0.2, 0: 0.0}[len({"slow", "fast"} & quantized)] if "key" in quantized else 0.0

    alone = {"slow": 0.9, "fast": 0.1, "key": 0.001}
    outcome, _ = search(silent, alone, together=together, saved={"slow": 500.0, "fast": 90.0, "key": 80.0})
    assert left(outcome) == ["key"]


@pytest.mark.parametrize(("share", "expected"), [(0.25, ["small"]), (0.5, ["small", "medium"]), (1.0, ["large"])])
def test_the_weights_left_in_float_stay_within_their_share(share, expected, silent):
    damages, parameters = {"large": 0.9, "small": 0.3, "medium": 0.2}, {"large": 600, "small": 150, "medium": 250}
    highest = {0.25: 1.15, 0.5: 0.95, 1.0: 0.6}
    limits = Gates(max_relative_metric_drop=highest[share])
    outcome, variants = search(silent, damages, parameters=parameters, share=share, limits=limits)
    assert left(outcome) == expected
    sizes = [sum(parameters[name] for name in set(damages) - quantized) for quantized in variants.seen]
    assert max(sizes) <= share * 1000


def test_where_no_room_is_enough_the_error_says_what_the_best_was(silent):
    limits = Gates(max_relative_metric_drop=0.01, min_agreement=0.99)
    expected = (
        r"^quantize_static: with at most 50% of the weights in float no fallback meets the limits \(relative drop "
        r"0\.01, agreement 0\.99\); the best was relative drop 0\.2000, agreement 0\.8000, divergence 0\.2; raise max"
    )
    with pytest.raises(StageError, match=expected):
        search(silent, {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.0}, share=0.5, limits=limits, parameters={"d": 100})


def test_the_best_may_be_to_revert_nothing(silent):
    with pytest.raises(StageError, match=r"the best was relative drop 0\.3000, "):
        search(silent, {"a": 0.2, "b": 0.1}, together=lambda quantized: 0.3 + 0.1 * (2 - len(quantized)))


@pytest.mark.parametrize(
    "together", [lambda q: 1.0, lambda q: 1.0 / (1 + len(q)), lambda q: 1.0 + (len(q) * 7919) % 13]
)
def test_the_search_ends_whatever_the_groups_do_together(together, silent):
    damages = {f"group {n}": 0.1 * (n % 7) for n in range(30)}
    with pytest.raises(StageError, match="no fallback meets the limits"):
        search(silent, damages, together=together, limits=Gates.model_construct(min_agreement=2.0))


def test_the_most_groups_are_tried_a_bounded_number_of_times(silent):
    made = Made([group(f"group {n}") for n in range(30)], lambda quantized: 1.0)
    costs = [Cost(each, loss_of(0.5), 10.0) for each in made.groups]
    with pytest.raises(StageError):
        fall_back(made, costs, max_float_share=1.0, progress=silent)
    assert len(made.seen) <= 1 + 30 * (1 + fallback.AGAIN)


def test_a_loss_says_all_it_is_judged_by():
    loss = dataclasses.replace(loss_of(0.25), agreement=0.875)
    assert fallback.describe(loss) == "relative drop 0.2500, agreement 0.8750, divergence 0.25"
