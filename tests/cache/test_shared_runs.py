"""Two machines that share a cache: what one has built, the other neither trains, exports nor quantizes again."""

from __future__ import annotations

import shutil
from pathlib import Path

from doubles import Heard, few_options

from optimize import building
from optimize.planning import make_plan
from optimize.running import run

HEAD = "text-classification"


def test_a_second_machine_builds_nothing(checkpoint, data_folder, tmp_path: Path, monkeypatch) -> None:
    address = f"file://{tmp_path}/store"
    options = {"pipeline": "cpu-dynamic", "build_only": True, "cache": address}
    told, manifests = [], []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        plan = make_plan(few_options(tmp_path / name, checkpoint(HEAD), data_folder(HEAD), **options))
        assert tmp_path / name in plan.cache.parents
        told.append(Heard())
        manifests.append(run(plan, progress=told[-1])[1])
        monkeypatch.setattr(building, "private_params", None)  # which no stage runs without

    assert [[each.cached for each in made.stages] for made in manifests] == [[False, False], [True, True]]
    assert [each.artifact for each in manifests[0].stages] == [each.artifact for each in manifests[1].stages]
    assert "nothing to redo: every stage is in the cache" in told[1].lines
    objects = {path.name for path in (tmp_path / "store").iterdir()}
    assert objects >= {f"{each.key}.tar" for each in manifests[0].stages}
    assert not list((tmp_path / "one").rglob("unsent"))
    shutil.rmtree(tmp_path / "store")
