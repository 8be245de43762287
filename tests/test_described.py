"""Every word that a user may write into YAML or read in a manifest says what it means."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from optimize import compared, manifest, tuned
from optimize.compared import Comparison, Regression
from optimize.gates import Gates
from optimize.manifest import Manifest, Record
from optimize.runtimes.pytorch import TorchRuntime
from optimize.stages import STAGES, quantize_neural_compressor
from optimize.targets import TARGETS
from optimize.tuned import Tuned
from optimize.tuning.space import Tuning

RECORDS = [
    each
    for module in (manifest, compared, tuned)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Record) and each.__module__ == module.__name__
]
PARAMETERS = {
    **{f"stage {name}": stage.params for name, stage in STAGES.items()},
    "a setting of quantize_neural_compressor": quantize_neural_compressor.Setting,
    **{f"target {name}": target.runtime for name, target in TARGETS.items()},
    "PyTorch": TorchRuntime,
    "limits": Gates,
    "a search over fine-tunings": Tuning,
}
MODELS: dict[str, type[BaseModel]] = {**PARAMETERS, **{f"manifest {each.__name__}": each for each in RECORDS}}
LONGEST = 420


def test_the_records_of_a_manifest_are_all_looked_at():
    assert {Manifest, Comparison, Regression, Tuned} <= set(RECORDS)
    assert len(RECORDS) > 10


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_field_is_described(name):
    missing = [field for field, info in MODELS[name].model_fields.items() if not info.description]
    assert not missing


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_description_is_a_sentence_or_a_few(name):
    for field, info in MODELS[name].model_fields.items():
        text = info.description or ""
        assert text.endswith("."), field
        assert len(text) < LONGEST, field
        assert not text[0].islower(), field
