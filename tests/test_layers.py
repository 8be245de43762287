"""The import layers, the tables and their files, and what must stay light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optimize
from optimize.cache import SHAPES_NOTHING
from optimize.heads import HEADS
from optimize.stages import STAGES
from optimize.targets import TARGETS

PACKAGE = Path(optimize.__file__).parent
TESTS = Path(__file__).parent
HEAVY = {"torch", "transformers", "onnxruntime", "openvino", "nncf", "datasets", "optimum", "onnx", "matplotlib"}
LAYERS = [
    {"__main__"},
    {"cli"},
    {"sweep", "bench", "peers"},
    {"comparing", "serving"},
    {"running", "certifying", "publishing", "finished", "scores", "ci", "delivering", "using", "tuning"},
    {"choosing"},
    {"search"},
    {"building"},
    {"planning"},
    {"refusals"},
    {"report", "tracking"},
    {"config", "measure", "cache", "source", "data", "hub", "demo"},
    {"stages", "targets", "heads"},
    {"pruning"},
    {"training", "quantization"},
    {"machine"},
    {"graphs"},
    {"evaluate", "runtimes"},
    {"interfaces"},
    {"foresight"},
    {"gates"},
    {"outcomes"},
    {"evidence"},
    {"rule"},
    {"examples"},
    {"artifact", "checkpoint", "manifest", "compared", "swept", "tuned", "sentences"},
    {"request"},
    {"files"},
    {"errors"},
]
STRANGERS = {"stages", "targets", "heads"}
"""Modules of one row that never import one another; in other rows neighbours may."""
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}
MAKERS = {"stages", "heads", "source", "data", "demo", "targets"}
"""Where the functions are that fill the cache's entries."""
TABLES = {"stages": set(STAGES), "targets": set(TARGETS), "heads": {name.replace("-", "_") for name in HEADS}}


def name_of(path):
    """The dotted name of a module of the package."""
    parts = ("optimize", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph_of(package):
    """Which modules each module imports, inside functions and for types too."""
    files = {name_of(path): path for path in package.rglob("*.py")}
    graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                wholes = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (wholes & files.keys()) or ({node.module} & files.keys())
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & files.keys()
        graph[name] = found - {name}
    return graph


def reachable(start, graph):
    """All that can be reached, `start` included."""
    seen, left = set(), [start]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += graph[name]
    return seen


def circles(graph):
    """Groups of modules of which each reaches each other, sorted."""
    reach = {name: reachable(name, graph) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return sorted(list(group) for group in groups if len(group) > 1)


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
        ("stages", "from optimize.graphs.onnx import READOUT_SLICE", False),
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
    shared = {"heads": {"_custom", "_encoding", "_metrics", "_squad", "_tags"}}
    files = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    assert files == TABLES[folder] | shared.get(folder, set())


def test_no_modules_import_each_other_in_a_circle_not_even_for_their_types():
    assert circles(graph_of(PACKAGE)) == []


def test_a_circle_is_seen():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(imports) == [["b", "c"]]


def test_nothing_that_shapes_an_artifact_is_left_out_of_the_cache_keys():
    """What runs inside a stage, a download or a demo's training is all that these import, however indirectly."""
    imports = graph_of(PACKAGE)
    roots = [name for name in imports if name.split(".")[1:2] and name.split(".")[1] in MAKERS]
    reached = {name.split(".")[1] for root in roots for name in reachable(root, imports) if "." in name}
    assert reached >= MAKERS
    assert reached & set(SHAPES_NOTHING) == set()


def test_all_that_is_left_out_of_the_cache_keys_is_there():
    assert {f"optimize.{name}" for name in SHAPES_NOTHING} <= graph_of(PACKAGE).keys()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_tests(stage):
    assert (TESTS / "stages" / f"test_{stage}.py").is_file()


@pytest.mark.parametrize(
    "module", ["checkpoint", "cli.commands", "cli.tables", "planning", "config", "stages", "targets", "heads"]
)
def test_what_only_plans_imports_nothing_heavy(module):
    code = f"import sys, optimize.{module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
