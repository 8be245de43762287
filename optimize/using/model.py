"""A finished model as a callable: texts in, answers out, in batches of similar length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from optimize.errors import DataError, brief, unknown_name
from optimize.evaluate.predict import MAX_BATCH, collate, own_outputs, plan_batches
from optimize.interfaces import Feature, Feed, Head, Params, Session
from optimize.manifest import Manifest
from optimize.using.asking import Known, Question, Task


@dataclass(frozen=True)
class Model:
    """A head's model that is asked, and answers, as transformers.pipeline does; several threads may ask at a time.

    `record` is the manifest of the run that it comes from. `batch_tokens` bounds the padded tokens of a batch.
    """

    head: Head
    task: Task
    known: Known
    session: Session
    record: Manifest
    batch_tokens: int

    def __call__(self, inputs: Any = None, *, batch_size: int = MAX_BATCH, **words: Any) -> Any:
        """Answer one input, or a list of them with a list.

        An input is a text; for question answering, a mapping of `question` and `context`; for multiple choice, one of
        `context` and `choices`. The parts of a mapping may be given by name instead. All other words are options of
        the task. `batch_size` is the most features that run at a time. Raises DataError.
        """
        fields = {name: words.pop(name) for name in self.task.fields if name in words}
        if (inputs is None) == (not fields):
            raise DataError(f"{self.head.name}: give an input, or its {' and '.join(self.task.fields[:2])} by name")
        options = self.options(words)
        given = self.task.gather(fields) if inputs is None else inputs
        if self.task.is_one(given, options):
            return self.task.alone(self._answers([given], options, batch_size)[0], given, options)
        return self.task.together(self._answers(given, options, batch_size)) if given else []

    def options(self, words: Mapping[str, Any]) -> Params:
        """The task's options by these words. Raises DataError."""
        known = self.task.options.model_fields
        for name in words:
            if name not in known:
                raise unknown_name(f"{self.head.name}: options", name, known)
        try:
            return self.task.options.model_validate(words)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{where}: {first['msg']}, not {brief(first['input'])}; mend it") from None

    def ask(self, given: Any, options: Params) -> Question:
        """One input as a question. Raises DataError."""
        return self.task.ask(given, options, self.known)

    def run(self, features: Sequence[Feature], *, size: int = MAX_BATCH) -> list[Feed]:
        """The outputs of features, without padding, in their order."""
        found: list[Feed] = [{}] * len(features)
        for batch in plan_batches(features, size=size, tokens=self.batch_tokens):
            outputs = self.session(collate([features[index] for index in batch], pad_id=self.known.tokens.pad_id))
            for place, index in enumerate(batch):
                found[index] = own_outputs(outputs, place, features[index], head=self.head)
        return found

    def _answers(self, inputs: Sequence[Any], options: Params, size: int) -> list[Any]:
        questions = [self.ask(given, options) for given in inputs]
        outputs = iter(self.run([feature for each in questions for feature in each.features], size=size))
        return [each.answer([next(outputs) for _ in each.features]) for each in questions]
