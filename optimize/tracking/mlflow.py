"""MLflow, through its client alone: mlflow-skinny is enough, and what is installed as mlflow has it, too.

A run is one run of MLflow's. A metric is called `model/number`, and the judged model's numbers stand once more without
the model, so that runs of different pipelines lie side by side in one column.
https://mlflow.org/docs/latest/ml/tracking
"""

from __future__ import annotations

import datetime
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from optimize.data.urls import redacted
from optimize.errors import UnavailableError, brief, first_line
from optimize.tracking.interface import Tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "distilbert-optimize"
"""Where MLFLOW_EXPERIMENT_NAME names none."""
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Where the environment says nothing else. MLflow would try for minutes, and print between our JSON."""
FOREIGN = re.compile(r"[^\w\-./ ]")
"""What MLflow takes in no name."""
NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as a run's description, as Markdown."""
MOST_OF_NOTE, CUT = 5000, "\n\nThe rest is in `report.md`, among the artifacts."
"""Letters of a tag's value that any MLflow keeps, and what stands at the end where some are left out."""
MOST_LETTERS, MOST_PARAMS, MOST_METRICS = 250, 100, 1000
"""Of a name or a value, and in one request; MLflow 3 takes longer values, and MLflow 2 does not."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Mlflow:
    """The tracker `mlflow`; a place is a tracking URI."""

    def check(self, place: str | None) -> None:
        """Refuse where MLflow is not installed or its server does not answer."""
        if importlib.util.find_spec("mlflow") is None:
            raise UnavailableError("tracker mlflow: MLflow is not installed; pip install 'distilbert-optimize[mlflow]'")
        _asked(place, lambda client: client.get_experiment_by_name(_experiment()))

    def track(self, run: Tracked, place: str | None) -> str:
        """Record a run; it is marked as failed where not all of it could be recorded."""
        return _asked(place, lambda client: _track(client, run))


def _asked(place: str | None, ask: Callable[[MlflowClient], Result]) -> Result:
    """What a client of this place is asked, with its failures in our words."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return ask(MlflowClient(tracking_uri=place))
    # OSError is what requests raises, too; a store of files or a database asks for more than mlflow-skinny has.
    except (MlflowException, OSError, ImportError) as error:
        said = brief(redacted(first_line(error)), 160)
        raise UnavailableError(f"tracker mlflow: {said}; look at the server and its address") from error


def _experiment() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def _track(client: MlflowClient, run: Tracked) -> str:
    found = client.get_experiment_by_name(_experiment())
    number = found.experiment_id if found else client.create_experiment(_experiment())
    tags = {**dict(_named(run.tags)), "mlflow.source.name": "optimize", NOTE: _note(run.description)}
    made = client.create_run(number, tags=tags, run_name=run.name).info.run_id
    whole = False
    try:
        _log(client, made, run)
        whole = True
    finally:
        client.set_terminated(made, "FINISHED" if whole else "FAILED")
    return f"run {made} of experiment {_experiment()}"


def _log(client: MlflowClient, made: str, run: Tracked) -> None:
    from mlflow.entities import Metric, Param

    when = round(datetime.datetime.fromisoformat(run.created).timestamp() * 1000)
    params = [Param(name, value) for name, value in _named(run.params)]
    metrics = [Metric(_name(name), value, when, 0) for name, value in _metrics(run.metrics)]
    for some in _batches(params, MOST_PARAMS):
        client.log_batch(made, params=some)
    for some in _batches(metrics, MOST_METRICS):
        client.log_batch(made, metrics=some)
    client.log_artifacts(made, str(run.folder))


def _note(text: str) -> str:
    """As many whole lines as are kept."""
    if len(text) <= MOST_OF_NOTE:
        return text
    kept = text[: MOST_OF_NOTE - len(CUT)]
    return (kept.rpartition("\n")[0] or kept) + CUT


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, float]]:
    """Every finite number of every model, and the last model's once more under its own name."""
    numbers = [(f"{model}/{name}", value) for model, found in metrics.items() for name, value in found.items()]
    numbers += list(metrics.values())[-1].items() if metrics else []
    return ((name, float(value)) for name, value in numbers if math.isfinite(value))


def _named(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((_name(name), value[:MOST_LETTERS]) for name, value in values.items())


def _name(name: str) -> str:
    return FOREIGN.sub("_", name)[:MOST_LETTERS]


def _batches(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    left: Any = iter(items)
    while some := list(islice(left, most)):
        yield some
