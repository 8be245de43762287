"""What is distributed: the wheel and the source distribution, built, installed beside nothing of ours, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from libraries import needs

from optimize import __version__

ROOT = Path(__file__).parents[2]
HEAD = "text-classification"

pytestmark = [pytest.mark.slow, needs("hatchling")]


def build(source: Path, out: Path, *kinds: str) -> Path:
    """Build without isolation, so without a network: hatchling is the whole of the build."""
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *(f"-t{kind}" for kind in kinds)]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=120)
    return out


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist")


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command of a fresh environment that has the libraries of this one, and nothing of this tree.

    The libraries' folder is on its path, but the `.pth` files in there, our editable installation, are not read.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--no-index", "--no-deps"]
    # Without this pip takes the editable installation, which it sees through the path, for ours and removes it.
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True, capture_output=True, timeout=120)
    return home / "bin" / "optimize"


def run(command: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder, without what leads Python to this tree."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_wheel_holds_the_code_its_types_and_all_pipelines(wheel):
    names = contents(wheel).keys()

    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "optimize").rglob("*.py")}
    assert names >= ours | {"optimize/py.typed"}
    assert names >= {f"optimize/pipelines/{path.name}" for path in (ROOT / "pipelines").glob("*.yaml")}
    assert {name.split("/")[0] for name in names} == {"optimize", f"distilbert_optimize-{__version__}.dist-info"}


def test_a_wheel_made_of_the_source_distribution_is_the_same(built, wheel, tmp_path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()

    again = build(source, tmp_path / "dist", "wheel")

    assert contents(next(again.glob("*.whl"))) == contents(wheel)


@pytest.mark.parametrize(
    ("words", "says"), [("--version", __version__), ("--help", "publish"), ("list", "quantize_static")]
)
def test_the_installed_command_answers_from_an_empty_folder(words, says, command, tmp_path):
    done = run(command, tmp_path, words)

    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_builds_a_model_from_an_empty_folder(command, checkpoint, data_folder, tmp_path):
    model, data = str(checkpoint(HEAD)), str(data_folder(HEAD))
    words = ["--model", model, "--data", data, "--pipeline", "cpu-dynamic", "--build-only", "--cache", "cache"]

    done = run(command, tmp_path, "run", *words, "--out", "runs")

    assert done.returncode == 4, done.stderr
    assert len(list(tmp_path.glob("runs/*/model/model.onnx"))) == 1
