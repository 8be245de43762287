"""A manifest without places of the machine that made it: the one way by which what is published loses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimize.manifest import Manifest, Measurement, StageRecord
from optimize.stages import STAGES

CACHES = ("model_cache", "engine_cache")
"""Settings of targets that change nothing but how long loading takes."""


def without_paths(manifest: Manifest) -> Manifest:
    """The manifest with Hub ids as they are, and folders and files as the last part of their path.

    Judged again, it gives the same verdict.
    """
    request, source = manifest.request, manifest.source
    settings = {name: value for name, value in request.settings.items() if name.rpartition(".")[2] not in CACHES}
    changed = replace(
        request,
        model=_name(source.id) if source.kind == "folder" else request.model,
        data=request.data if is_on_hub(manifest) else Path(request.data).name,
        pipeline=Path(request.pipeline).name,
        runtime=_without_caches(request.runtime),
        vocabulary=_name(request.vocabulary) if request.vocabulary else None,
        settings={name: _name(value) for name, value in settings.items()},
        stages=[{name: _params(name, params) for name, params in stage.items()} for stage in request.stages],
        head_code=replace(request.head_code, file=_name(request.head_code.file)) if request.head_code else None,
    )
    candidates = [
        each.model_copy(
            update={
                "stages": list(map(_stage, each.stages)),
                "tuning": _measurement(each.tuning) if each.tuning else None,
            }
        )
        for each in manifest.candidates
    ]
    return manifest.model_copy(
        update={
            "request": changed,
            "source": source.model_copy(
                update={
                    "id": _name(source.id) if source.kind == "folder" else source.id,
                    "base": _name(source.base) if source.base and source.base_revision is None else source.base,
                }
            ),
            "stages": list(map(_stage, manifest.stages)),
            "measurements": list(map(_measurement, manifest.measurements)),
            "candidates": candidates,
        }
    )


def is_on_hub(manifest: Manifest) -> bool:
    """Whether the data set is one of the Hub's, which alone have a revision."""
    return manifest.request.data_revision is not None


def _name(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) else value


def _params(stage: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's parameters, of those that name files their names."""
    reads = STAGES[stage].reads if stage in STAGES else ()
    return {name: _name(value) if name in reads else value for name, value in params.items()}


def _without_caches(runtime: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in runtime.items() if name not in CACHES}


def _stage(record: StageRecord) -> StageRecord:
    return record.model_copy(update={"params": _params(record.stage, record.params)})


def _measurement(record: Measurement) -> Measurement:
    return record.model_copy(update={"runtime": _without_caches(record.runtime)})
