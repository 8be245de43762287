"""The import layers, the tables and their files, and what must stay light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optimize
from optimize.heads import HEADS
from optimize.stages import STAGES
from optimize.targets import TARGETS

PACKAGE = Path(optimize.__file__).parent
TESTS = Path(__file__).parent
HEAVY = {"torch", "transformers", "onnxruntime", "openvino", "nncf", "datasets", "optimum", "onnx", "matplotlib"}
LAYERS = [
    {"__main__"},
    {"cli", "terminal"},
    {"sweep", "run", "report", "publish", "bench"},
    {"choose"},
    {"build"},
    {"plan"},
    {"config", "measure", "gates", "cache", "source", "data", "hub", "demo", "environment", "tokenized"},
    {"stages", "targets", "heads"},
    {"half_precision"},
    {"openvino_runtime", "onnx_runtime", "nvidia"},
    {"quantization"},
    {"evaluate"},
    {"interfaces"},
    {"artifact", "checkpoint", "manifest"},
    {"errors"},
]
STRANGERS = {"stages", "targets", "heads"}
"""Modules of one row that never import one another; in other rows neighbours may."""
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}
TABLES = {"stages": set(STAGES), "targets": set(TARGETS), "heads": {name.replace("-", "_") for name in HEADS}}


def imports_of(source):
    """Modules right below `optimize` that a source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{name}" for name in names]
        yield from {name.split(".")[1] for name in names if name.startswith("optimize.")} & set(RANK)


def wrong(module, imported):
    """Whether `module` may not import `imported`."""
    strangers = {module, imported} <= STRANGERS and module != imported
    return RANK[imported] < RANK[module] or strangers


def test_each_module_imports_from_its_own_row_and_the_rows_below_only():
    found = {
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for path in PACKAGE.rglob("*.py")
        if (module := path.relative_to(PACKAGE).parts[0].removesuffix(".py")) != "__init__"
        for imported in imports_of(path.read_text(encoding="utf-8"))
        if wrong(module, imported)
    }
    assert found == set()


def test_every_module_has_a_row_and_every_row_a_module():
    planned = {"sweep"}
    present = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert present - {"__init__"} == set(RANK) - (planned - present)


@pytest.mark.parametrize(
    ("module", "source", "refused"),
    [
        ("stages", "def run():\n    from optimize.heads import HEADS", True),
        ("targets", "import optimize.stages.export", True),
        ("heads", "from optimize import config", True),
        ("errors", "from optimize.artifact import seal", True),
        ("stages", "from optimize.stages._graph import READOUT_SLICE", False),
        ("quantization", "from optimize.stages import STAGES", True),
        ("evaluate", "from optimize.quantization import calibrate", True),
        ("stages", "from optimize.evaluate.predict import collate", False),
        ("measure", "from optimize.targets import TARGETS", False),
        ("cache", "import optimize", False),
        ("config", "from optimize.measure.shapes import parse_shape", False),
    ],
)
def test_the_check_itself_sees_what_it_must(module, source, refused):
    assert any(wrong(module, imported) for imported in imports_of(source)) == refused


@pytest.mark.parametrize("folder", TABLES)
def test_every_file_is_in_its_table_and_every_entry_has_its_file(folder):
    files = {path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_")}
    assert files == TABLES[folder]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_tests(stage):
    assert (TESTS / "stages" / f"test_{stage}.py").is_file()


@pytest.mark.parametrize("module", ["checkpoint", "cli", "plan", "config", "stages", "targets", "heads", "terminal"])
def test_what_only_plans_imports_nothing_heavy(module):
    code = f"import sys, optimize.{module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
