"""What calibration costs: ours against ONNX Runtime's percentile calibrator, on the same texts and tensors; and NNCF's.

Each run has a process of its own, whose peak is then its own. ONNX Runtime keeps every activation of
every text (issue 10503), so processes get a limit and one that meets it is reported, not the machine's end.
The limit is on data (heap and private memory), which address space would overstate by gigabytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import numpy as np

from optimize.errors import StageError, first_line
from optimize.evaluate.memory import peak_memory_bytes
from optimize.interfaces import Feature, Feed, Progress
from optimize.measure.children import follow_parent, ignore_interrupts
from optimize.runtimes.onnx_runtime import NOTHING, cpu_session, session_options
from optimize.runtimes.openvino import load_nncf, load_openvino

PERCENTILE = 99.99
SHARE_OF_AVAILABLE = 0.8  # the rest is for whatever else runs, this process among it
GOODBYE_SECONDS = 5.0  # for a process that died to leave its exit code


@dataclass(frozen=True)
class Row:
    """One calibrator on so many texts; what was not measured is None, and `not_measured` says why."""

    calibrator: str
    samples: int
    peak_bytes: int | None
    seconds: float | None
    not_measured: str | None = None


Answers: TypeAlias = "Connection[tuple[int | None, float | None, str | None], None]"
"""Peak bytes, seconds, and why there are none."""


@dataclass(frozen=True)
class Task:
    """What a process is to do: calibrate `tensors` of a graph on `samples` random texts."""

    model: Path
    tensors: tuple[str, ...]
    samples: int
    tokens: int
    vocabulary: int
    threads: int

    def feeds(self) -> Iterator[Feed]:
        """The texts, [1, tokens] each; the same ones every time."""
        rng = np.random.default_rng(0)
        for _ in range(self.samples):
            ids = rng.integers(0, self.vocabulary, (1, self.tokens), dtype=np.int64)
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def compare(
    model: Path,
    *,
    calibrators: Sequence[str] = ("streaming", "onnxruntime"),
    samples: Sequence[int] = (64, 512),
    tokens: int = 128,
    threads: int,
    progress: Progress,
    limit_bytes: int | None = None,
) -> list[Row]:
    """Peak memory and seconds of calibrators on every number of samples, loading the graph included.

    Calibrated are the inputs of all products with weights; `nncf` quantizes the graph as well, for it does all at
    once. A process may use `limit_bytes`, by default most of what is available.
    """
    tensors, vocabulary = _inspect(model)
    rows: list[Row] = []
    for count in samples:
        for calibrator in calibrators:
            limit = limit_bytes or _available_bytes()
            task = Task(model, tensors, count, tokens, vocabulary, threads)
            rows.append(_measure(calibrator, task, limit))
            progress.step("calibration memory", len(rows), len(samples) * len(calibrators))
    return rows


def _inspect(path: Path) -> tuple[tuple[str, ...], int]:
    """The activations that are multiplied with weights, and how many words the embedding has."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    activations: dict[str, None] = {}  # each once, in order: queries, keys and values read the same one
    words = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            activations[node.input[0]] = None
        elif node.op_type == "Gather" and node.input[1] == "input_ids":
            words = words or int(weights[node.input[0]][0])
    if not activations or not words:
        raise StageError(
            f"{path.name}: no product with weights, or no look-up of 'input_ids'; give an exported FP32 graph"
        )
    return tuple(activations), words


def _available_bytes() -> int | None:
    """Most of the memory that is free now; None where the system does not say."""
    path = Path("/proc/meminfo")
    for line in path.read_text(encoding="ascii").splitlines() if path.exists() else ():
        if line.startswith("MemAvailable:"):
            _, kibibytes, _ = line.split()
            return int(int(kibibytes) * 1024 * SHARE_OF_AVAILABLE)
    return None


def _measure(calibrator: str, task: Task, limit: int | None) -> Row:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, calibrator, task, limit), daemon=True)
    process.start()
    theirs.close()
    try:
        peak, seconds, failure = ours.recv()
    except (EOFError, OSError):
        process.join(GOODBYE_SECONDS)
        peak, seconds, failure = None, None, f"its process ended with code {process.exitcode}"
    finally:
        ours.close()
        process.kill()
        process.join(GOODBYE_SECONDS)
    return Row(calibrator, task.samples, peak, seconds, failure)


def _serve(connection: Answers, calibrator: str, task: Task, limit: int | None) -> None:
    """The process's life: calibrate once, and report what it took."""
    ignore_interrupts()
    follow_parent()
    if limit is not None:
        _set_limit(limit)
    start = time.perf_counter()
    try:
        CALIBRATORS[calibrator](task)
    except Exception as error:  # noqa: BLE001  (sent to the parent, which reports it)
        connection.send((None, None, _reason(error, limit)))
    else:
        connection.send((peak_memory_bytes(), time.perf_counter() - start, None))


def _set_limit(limit: int) -> None:
    # There is none on Windows, where a process that needs too much is slow instead.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _reason(error: Exception, limit: int | None) -> str:
    """Say it was memory where it was; ONNX Runtime says so in errors of its own."""
    said = any(words in str(error) for words in ("bad_alloc", "Failed to allocate memory"))
    if limit is not None and (said or isinstance(error, MemoryError)):
        return f"needed more than {limit / 1e9:.1f} GB"
    return first_line(error)


def _stream(task: Task) -> None:
    """Ours."""
    import onnx

    from optimize.quantization.calibrate import calibrate

    features: list[Feature] = []
    for example, feed in enumerate(task.feeds()):
        features.append(Feature({name: array[0] for name, array in feed.items()}, example))
    calibrate(
        onnx.load(task.model),
        task.tensors,
        features,
        method="percentile",
        percentile=PERCENTILE,
        threads=task.threads,
    )


def _keep_all(task: Task) -> None:
    """ONNX Runtime's, as `create_calibrator` makes it, but held to the same tensors.

    Left alone it would calibrate the outputs of these products and all attention as well.
    """
    import onnx
    from onnxruntime.quantization.calibrate import PercentileCalibrater

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        calibrator = PercentileCalibrater(
            task.model, ["MatMul", "Gemm"], str(Path(folder, "augmented.onnx")), symmetric=True, percentile=PERCENTILE
        )
        # An instance's own in place of the method, which takes no list of tensors.
        calibrator.select_tensors_to_calibrate = lambda _: (
            set(task.tensors),
            {name: onnx.ValueInfoProto(name=name) for name in task.tensors},
        )
        calibrator.augment_graph()
        # Quiet, because running out of memory is a result here, and ends the process with a line of its own.
        options = session_options(task.threads, log=NOTHING, rewrite=False)
        calibrator.infer_session = cpu_session(calibrator.augmented_model_path, options)
        calibrator.collect_data(_Reader(task.feeds()))
        calibrator.compute_data()


class _Reader:
    """How ONNX Runtime asks for texts."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        """The next text, or None."""
        return next(self.feeds, None)


def _quantize(task: Task) -> None:
    """NNCF's whole post-training quantization of the graph, with its defaults for transformers."""
    nncf = load_nncf()
    with contextlib.redirect_stdout(io.StringIO()):
        nncf.quantize(
            load_openvino().convert_model(task.model),
            nncf.Dataset(list(task.feeds())),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=task.samples,
        )


CALIBRATORS: dict[str, Callable[[Task], None]] = {"streaming": _stream, "onnxruntime": _keep_all, "nncf": _quantize}
