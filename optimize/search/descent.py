"""Carry out a search: prune step by step, let each model learn, and quantize those that are worth it.

All of it goes through the cache, and time is counted as what each stage took when it was carried out. A search that was
killed therefore goes on to the same end, and one that is asked for again is answered from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optimize.building import Folded, Loaded, go_on
from optimize.config import Pipeline, Search, Step, parse_step
from optimize.errors import StageError, first_line
from optimize.gates import Gates
from optimize.interfaces import Facts, Progress
from optimize.manifest import Probe, StageRecord
from optimize.measure.subjects import Subject
from optimize.search.candidates import Candidates
from optimize.search.course import Move, Rung, Try, finalists, next_move
from optimize.stages import STAGES

KEPT = 2
"""Budgets that are quantized in the end: the smallest within the limits may miss them in INT8."""
FAR = 1.5
"""A candidate that takes so many times as long as the fastest of the same model stays behind once that is pruned."""
LEARNING = {"epochs": 1000.0, "evaluate_every": 400}
"""Time is what ends training. A measurement takes as long as some 30 steps of it; each probe ends with one."""
GENTLE = {"learning_rate": 2e-5}
"""For the minutes of a probe. SST-2 at 45 % of the operations came from 0.0107 nats to 0.0067 in two minutes; at 1e-5
to 0.0072, at the usual 5e-5 to 0.0074, and at 60 % that rate took it away from where pruning had left it."""
FEW = {"sample_tokens": 16_384, "tuning_tokens": 4_096}
"""What `prune` goes by: an eighth of what it takes where nothing learns behind it, in half of the time."""
VOCABULARY = 0.25
"""Of what the limits allow, the most that a smaller vocabulary may take: it makes nothing faster, and the rest has to
do for pruning and INT8. On CoNLL-2003, names that no training text has took 1.2 % of F1, where 1 % was allowed."""
TINY = 1e-6
Medians = Callable[[Sequence[Subject]], Mapping[str, float]]
"""Times models; their median latencies in ms by their names."""


@dataclass
class Descent:
    """What a search has found so far.

    `models` are by budget, that which learnt last at the end; `rungs` what became of them, by falling budget; `probes`
    what was tried, in order.
    `seconds` are what stages took, by their keys; `reserve` is how many are kept for quantizing what is found.
    `lost` is what the vocabulary took on tuning data: what comes after is measured beside the model that has it.
    """

    search: Search
    limits: Gates
    start: Folded
    lost: Facts = field(default_factory=dict)
    models: dict[float, Folded] = field(default_factory=dict)
    rungs: dict[float, Rung] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    reserve: float = 0.0
    lowest: float = 0.0

    def count(self, records: Iterable[StageRecord]) -> float:
        """Add what stages took to the time spent, each once; how much that was."""
        before = self.spent
        self.seconds |= {each.key: each.seconds for each in records}
        return self.spent - before

    @property
    def tried(self) -> list[Rung]:
        """All budgets with their tries, in falling order, which they were first tried in."""
        return list(self.rungs.values())

    @property
    def spent(self) -> float:
        """Seconds of all stages so far."""
        return sum(self.seconds.values())

    @property
    def left(self) -> float:
        """Minutes left to learn in."""
        return self.search.minutes - (self.spent + self.reserve) / 60.0


def searched_candidates(loaded: Loaded, search: Search, medians_of: Medians) -> Candidates:
    """The plan's candidates, of the model as it is and of those that a search prunes, and what the search tried.

    `medians_of` times models, of which the far slower ones are built of no pruned model.
    """
    found, forms = Candidates(), loaded.plan.candidates
    start, lost = opened(forms, search, loaded)
    descent = Descent(search, loaded.plan.pipeline.gates, start, lost)
    descent.count(start.records)
    took = quantize(descent, start, forms, found)
    if search.prefer == "latency" and len(found.built) > 1:
        medians = medians_of([each.subject for each in found.built])
        forms = near_the_fastest(forms, medians, found, loaded.progress)
    descent.reserve = KEPT * sum(took.get(form.name, 0.0) for form in forms)
    while move := next_move(descent.tried, descent.left, search, lowest=descent.lowest):
        make(descent, move)
    for rung in finalists(descent.tried, KEPT):
        quantize(descent, descent.models[rung.budget], forms, found, budget=rung.budget)
    return replace(found, probes=descent.probes)


def near_the_fastest(
    forms: Sequence[Pipeline], medians: Mapping[str, float], found: Candidates, progress: Progress
) -> tuple[Pipeline, ...]:
    """Those that pruning might still make the fastest, and what was not timed; the others are taken back."""
    fastest = min(medians.values(), default=0.0)
    far = {name: median for name, median in medians.items() if median > FAR * fastest}
    for name, median in far.items():
        reason = f"takes {median:.2f} ms before pruning, where the fastest takes {fastest:.2f}"
        found.leave_out(name, reason)
        progress.say(f"search: {name}: left out: {reason}")
    return tuple(form for form in forms if form.name not in far)


def opened(forms: Sequence[Pipeline], search: Search, loaded: Loaded) -> tuple[Folded, Facts]:
    """The model after what comes before all others, and what that lost on tuning data.

    These are stages that candidates begin with, else the vocabulary's, unless that takes too much of what is allowed.
    """
    opening = [step for step in forms[0].stages if STAGES[step.stage].first]
    if opening or not search.vocabulary or loaded.plan.head.answers_in_words:
        found = go_on(Folded(loaded), opening)
        return found, found.records[-1].facts if found.records else {}
    try:
        found = go_on(Folded(loaded), [parse_step("prune_vocabulary", where="search")])
    except StageError as error:
        return kept_whole(loaded, first_line(error))
    facts = found.records[-1].facts
    strain = strain_of(facts, loaded.plan.pipeline.gates)
    if strain > VOCABULARY:
        return kept_whole(loaded, f"a smaller one takes {strain:.0%} of what the limits allow on tuning data")
    return found, facts


def kept_whole(loaded: Loaded, reason: str) -> tuple[Folded, Facts]:
    """The model with its vocabulary, and the reason said."""
    loaded.progress.say(f"search: the vocabulary stays as it is: {reason}")
    return Folded(loaded), {}


def quantize(
    descent: Descent, model: Folded, forms: Sequence[Pipeline], found: Candidates, *, budget: float | None = None
) -> dict[str, float]:
    """Build all candidates of a model; the seconds that each took."""
    took = {}
    for form in forms:
        name = form.name if budget is None else f"{form.name} at {budget:.0%}"
        before = len(found.built)
        found.add(model, replace(form, name=name), [each for each in form.stages if not STAGES[each.stage].first])
        took[form.name] = sum(descent.count(each.records) for each in found.built[before:])
    return took


def make(descent: Descent, move: Move) -> None:
    """Make a move, and note what came of it; where that fails, nothing is tried at this budget and below any more."""
    progress = descent.start.loaded.progress
    model, rung = descent.models.get(move.budget), descent.rungs.get(move.budget)
    try:
        if model is None:
            begun, share = _latest(descent)
            model = go_on(begun, [pruning(move.budget / share)])
        model = go_on(model, [learning(move.minutes, order=len(descent.probes), gently=rung is None)])
    except StageError as error:
        progress.say(f"search: {move.budget:.0%} of the encoder: not built: {first_line(error)}")
        descent.lowest = move.budget
        return
    descent.count(model.records)
    facts = model.records[-1].facts
    minutes = (rung.tries[-1].minutes if rung else 0.0) + move.minutes
    facts = with_lost(facts, descent.lost)
    found = try_of(facts, minutes, descent.limits)
    descent.models.pop(move.budget, None)  # so that the last one is the one that learnt last
    descent.models[move.budget] = model
    descent.rungs[move.budget] = rung.then(found) if rung else Rung(move.budget, (found,))
    descent.probes.append(probe_of(move.budget, found, facts, descent.spent))
    progress.say(said(descent.probes[-1], descent.search))
    progress.step("search", int(descent.spent), int(max(60.0 * descent.search.minutes, descent.spent + 1)))


def _latest(descent: Descent) -> tuple[Folded, float]:
    """What the next budget begins with, and the budget that this has: the model that learnt last."""
    budget, model = next(reversed(descent.models.items()), (1.0, descent.start))
    return model, budget


def pruning(share: float) -> Step:
    """The stage that leaves such a share of the model that it is given, however much that was pruned before."""
    return parse_step({"prune": {"budget": round(share, 6), **FEW}}, where="search")


def learning(minutes: float, *, order: int, gently: bool) -> Step:
    """The stage that lets a model learn so long, from examples in another order each time."""
    params: dict[str, object] = {"max_minutes": round(minutes, 2), **LEARNING, "order": order}
    return parse_step({"distill": params | (GENTLE if gently else {})}, where="search")


def try_of(facts: Facts, minutes: float, limits: Gates) -> Try:
    """What a stage states of its model's loss on tuning data, held against the limits."""
    return Try(minutes, strain_of(facts, limits), number(facts, "divergence"))


def strain_of(facts: Facts, limits: Gates) -> float:
    """The loss that a stage states, as a share of what the tightest of the limits allows."""
    drop, disagreement, strains = number(facts, "relative_drop"), 1.0 - number(facts, "agreement"), [0.0]
    if limits.max_relative_metric_drop is not None:
        strains.append(drop / max(limits.max_relative_metric_drop, TINY))
    if limits.max_metric_drop is not None:
        reference = number(facts, "metric") / max(1.0 - drop, TINY)
        strains.append(drop * abs(reference) / max(limits.max_metric_drop, TINY))
    if limits.min_agreement is not None:
        strains.append(disagreement / max(1.0 - limits.min_agreement, TINY))
    return max(strains)


def with_lost(facts: Facts, lost: Facts) -> Facts:
    """What a stage states of its model's loss, and on top what the vocabulary had lost before."""
    if "tuning_relative_drop" not in lost:
        return facts
    drop = number(facts, "relative_drop") + number(lost, "relative_drop")
    agreement = max(0.0, number(facts, "agreement") + number(lost, "agreement") - 1.0)
    return {**facts, "tuning_relative_drop": drop, "tuning_agreement": agreement}


def probe_of(budget: float, found: Try, facts: Facts, spent: float) -> Probe:
    """What the manifest says of a try."""
    return Probe(
        budget=budget,
        minutes=round(found.minutes, 2),
        metric=number(facts, "metric"),
        relative_drop=number(facts, "relative_drop"),
        agreement=number(facts, "agreement"),
        divergence=found.divergence,
        within=found.strain <= 1.0,
        spent_minutes=round(spent / 60.0, 2),
    )


def number(facts: Facts, name: str) -> float:
    """What `prune` and `distill` state of their model's loss on tuning data."""
    value = facts[f"tuning_{name}"]
    if not isinstance(value, int | float):
        raise TypeError(f"tuning_{name} is {value!r}")
    return float(value)


def said(probe: Probe, search: Search) -> str:
    """A try in a line."""
    return (
        f"search: {probe.budget:.0%} of the encoder, {probe.minutes:.1f} min learnt: "
        f"{probe.relative_drop:+.2%} on tuning data, agreement {probe.agreement:.3f}, "
        f"{'within' if probe.within else 'beyond'} the limits; {probe.spent_minutes:.0f} of {search.minutes:.0f} min"
    )
