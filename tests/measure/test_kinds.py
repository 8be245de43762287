"""The table of kinds: it has a row for each kind that an artifact may be of, and each row does what it says."""

from typing import get_args

import pytest

from optimize.artifact import MODEL_FILES, Kind
from optimize.measure.kinds import KINDS
from optimize.targets import TARGETS


def test_every_kind_of_artifact_has_its_row_and_its_files():
    assert KINDS.keys() == MODEL_FILES.keys() == set(get_args(Kind))


def test_every_target_runs_one_of_them():
    assert {target.runs for target in TARGETS.values()} <= KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_model_holds_no_tensors(kind):
    assert KINDS[kind].tensors([]).found == []
