"""NNCF's accuracy control, driven by our limits, our tuning data and our sense of what an example lost.

NNCF knows a metric and how far it may drop. Here the metric is 1 minus what is missed of the limits (drop, relative
drop, agreement; each by the limits' rule), and it may not drop: operators go back to float until all limits are met.
Where the FP32 model, which NNCF asks about first, misses them by itself, no operator could mend that, and none goes
back. Operators are ranked by the divergence of single examples from the FP32 reference, since a metric such as F1 or a
rank correlation says nothing of one example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from optimize.errors import StageError
from optimize.evaluate.judge import Judge, Loss
from optimize.evaluate.predict import predict
from optimize.graphs.openvino import Weight, layer_name
from optimize.interfaces import Array, FactRow, Facts, Session
from optimize.runtimes.openvino import as_session

if TYPE_CHECKING:
    import nncf
    import openvino

WHERE = "quantize_openvino: accuracy control"


@dataclass(frozen=True)
class Trial:
    """What a model lost, and the operators that were put back to float to make it, none for the first ones."""

    operators: tuple[str, ...]
    loss: Loss


@dataclass
class Control:
    """Validates models for NNCF, and remembers what it did about them."""

    judge: Judge
    trials: list[Trial] = field(default_factory=list)
    pending: tuple[str, ...] = ()

    def reverted(self, operators: Sequence[str]) -> None:
        """Note which operators the next model has in float."""
        self.pending = tuple(operators)

    def quantize(
        self,
        library: ModuleType,
        model: openvino.Model,
        dataset: nncf.Dataset,
        settings: Mapping[str, object],
        advanced: nncf.AdvancedQuantizationParameters,
        *,
        samples: int,
    ) -> openvino.Model:
        """The quantized model, with operators in float as far as the limits need it; `library` is NNCF."""
        examples = len(self.judge.encoded.gold)
        if examples < 2:
            raise StageError(f"{WHERE}: needs two or more tuning examples; give more with --tuning-examples")
        return library.quantize_with_accuracy_control(
            model,
            dataset,
            # Examples go by number: `validate` has the texts, and batches them itself.
            validation_dataset=library.Dataset(list(range(examples))),
            validation_fn=self.validate,
            max_drop=0.0,
            drop_type=library.DropType.ABSOLUTE,
            **settings,
            advanced_quantization_parameters=advanced,
            # One worker: several would share this machine's cores, and the order of their work would not be fixed.
            advanced_accuracy_restorer_parameters=library.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(samples, examples - 1), num_ranking_workers=1
            ),
        )

    def validate(self, compiled: openvino.CompiledModel, items: Iterable[int]) -> tuple[float, list[float]]:
        """What NNCF asks of a compiled model: on all examples the metric, on some of them how close they are.

        Higher is better. Beside it stands the negated divergence of each example asked for.
        """
        session = as_session(compiled, self.judge.head, where=WHERE)
        examples = list(items)
        # Some examples alone: NNCF ranks operators by what these lose, and a metric on so few would say nothing.
        if len(examples) < len(self.judge.encoded.gold):
            found = self.judge.divergences(self._rows(session, set(examples)))
            values = [-found.get(example, 0.0) for example in examples]
            return sum(values) / len(values), values
        observed = self.judge.observe(session)
        loss = self.judge.loss_of(observed)
        self.trials.append(Trial(self.pending, loss))
        self.pending = ()
        found = self.judge.divergences(dict(enumerate(observed.rows)))
        # The first trial is the FP32 model; if it misses the limits, 0 here lets every later one pass.
        missed = self.judge.excess(loss) if self.judge.allows(self.trials[0].loss) else 0.0
        return 1.0 - missed, [-found.get(example, 0.0) for example in examples]

    def _rows(self, session: Session, examples: set[int]) -> dict[int, Array]:
        """The rows of these examples' features, by the feature's place among all."""
        judge = self.judge
        places = [i for i, feature in enumerate(judge.encoded.features) if feature.example in examples]
        features = [judge.encoded.features[place] for place in places]
        return {places[i]: rows for i, rows in predict(session, judge.head, features, pad_id=judge.pad_id)}

    def facts(self, weights: Sequence[Weight]) -> Facts:
        """How many models were tried, and a row for each step that the written model, by its weights, still has.

        The first trial is the FP32 model, the second the quantized one.
        """
        quantized = {weight.operator for weight in weights if weight.quantized}
        steps: dict[tuple[str, ...], float] = {}
        for before, after in zip(self.trials, self.trials[1:], strict=False):
            if after.operators and not quantized & set(after.operators):
                steps[after.operators] = before.loss.divergence - after.loss.divergence
        facts: Facts = {"variants_tried": len(self.trials) - 1}
        rows: list[FactRow] = []
        for operators, removed in steps.items():
            group = " + ".join(layer_name(operator) for operator in operators)
            rows.append({"group": group, "why": "the limits were not met without it", "divergence_removed": removed})
        if rows:
            facts["reverted"] = rows
        return facts
