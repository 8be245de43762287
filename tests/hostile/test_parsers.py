"""Whatever a file holds, what reads it gives a value or one of our own errors: examples that nobody thought of."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hostile.cases import HEAD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimize.artifact import stored_tensors
from optimize.checkpoint import CONFIG_FILE
from optimize.config import KEYS, load_pipeline
from optimize.data.files import find_files
from optimize.data.read import peek_columns
from optimize.errors import OptimizeError
from optimize.source.finding import inspect_checkpoint
from optimize.source.geometry import SIZES
from optimize.stages import STAGES

FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
ENTRIES = st.sampled_from([*STAGES]) | st.dictionaries(st.sampled_from([*STAGES]), VALUES, max_size=2) | VALUES
PIPELINES = st.fixed_dictionaries(
    {"target": st.sampled_from(["cpu", "openvino"])},
    optional=dict.fromkeys(KEYS[2:], VALUES) | {"stages": st.lists(ENTRIES, max_size=3) | VALUES},
)
TENSORS = st.dictionaries(
    st.text(max_size=5),
    st.fixed_dictionaries(
        {"dtype": st.sampled_from(["F32", "I8", "F4"]) | SCALARS},
        optional={"shape": st.lists(st.integers(), max_size=3) | VALUES, "data_offsets": st.lists(st.integers())},
    )
    | VALUES,
    max_size=3,
)


@pytest.fixture(scope="module")
def spoilt(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small checkpoint for examples to be written into, one after the other."""
    folder = tmp_path_factory.mktemp("spoilt") / "model"
    shutil.copytree(checkpoint(HEAD), folder)
    return folder


def survive(act: Callable[..., object], *words: object) -> None:
    """Let nothing but our own errors pass for an answer, on one line that somebody can read."""
    refusal = ""
    try:
        act(*words)
    except OptimizeError as error:
        refusal = str(error)
    assert len(refusal) < 2_000


@FEW
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | PIPELINES)
def test_any_pipeline(tmp_path: Path, content: object) -> None:
    path = tmp_path / "mine.yaml"
    text = content if isinstance(content, bytes) else yaml.safe_dump(content, allow_unicode=True).encode()
    path.write_bytes(text)

    survive(load_pipeline, str(path))


@FEW
@given(changes=st.dictionaries(st.sampled_from([*SIZES, "pruned_layers", "architectures", "id2label"]), VALUES))
def test_any_config(checkpoint, spoilt: Path, changes: dict[str, object]) -> None:
    config = json.loads((checkpoint(HEAD) / CONFIG_FILE).read_text(encoding="utf-8"))
    (spoilt / CONFIG_FILE).write_text(json.dumps(config | changes), encoding="utf-8")

    survive(inspect_checkpoint, str(spoilt))


@FEW
@given(content=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_file_as_a_config(spoilt: Path, content: bytes) -> None:
    (spoilt / CONFIG_FILE).write_bytes(content)

    survive(inspect_checkpoint, str(spoilt))


@FEW
@given(content=st.binary(max_size=100) | TENSORS, body=st.binary(max_size=20))
def test_any_header_of_weights(tmp_path: Path, content: object, body: bytes) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)

    survive(stored_tensors, path)


@FEW
@given(
    rows=st.binary(max_size=200)
    | st.lists(VALUES, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    suffix=st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]),
)
def test_any_rows(tmp_path: Path, rows: bytes, suffix: str) -> None:
    path = tmp_path / f"validation.{suffix}"
    path.write_bytes(rows)

    with contextlib.ExitStack() as after:
        after.callback(path.unlink)
        survive(lambda: [peek_columns(each) for each in find_files(tmp_path).values()])
