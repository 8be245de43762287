"""What the documents say is what the code does."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml
from reference import EXAMPLES, PAGES
from results import BAR, bar, made_anew, pipelines_of, read_baselines, render_glance, render_summary
from results import PAGES as RESULTS

from optimize.cli.commands import app
from optimize.config import load_pipeline, parse_pipeline, parse_step, shipped_pipelines
from optimize.errors import RequestError
from optimize.report.tables import untimed
from optimize.stages import STAGES
from optimize.sweep.matrix import Matrix, points_of, spans_of
from optimize.targets import ANY_TARGET

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE_FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "reports" / "README.md"])
}
HISTORY = {"CHANGELOG.md", "docs/develop/decisions.md"}
"""Pages of what was: their commands and names are those of their day."""
PRIVATE = (".checkpoints", "../shared", "/tmp/", f"{ROOT.parent}/")
PIECE, SWEEP = "# part of a pipeline", "# a sweep"
README_BYTES = 8 * 1024
PICTURE_BYTES = 200 * 1024
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app)


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE_FILES[page], re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[tuple[str, str]]:
    """Every command of a program that a page shows, with the page: indented by four, or fenced."""
    found = []
    for page, text in PAGE_FILES.items():
        if page not in HISTORY and page != "docs/reference/command-line.md":
            found += [(page, line) for line in re.findall(rf"^(?:    )?({program} .+)$", text, re.MULTILINE)]
    return found


ALL_YAML = [(page, block) for page in PAGE_FILES if page not in HISTORY for block in blocks(page, "yaml")]
WHOLE_YAML = [(page, block) for page, block in ALL_YAML if not block.startswith((PIECE, SWEEP))]
SWEEPS = [(page, block) for page, block in ALL_YAML if block.startswith(SWEEP)]
PIECES = [(page, block) for page, block in ALL_YAML if block.startswith(PIECE)]


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_the_code_says(page):
    assert (DOCS / "reference" / page).read_text(encoding="utf-8") == PAGES[page](), "run: make docs"


def test_the_result_tables_are_generated_from_the_committed_manifests():
    baselines = read_baselines(ROOT / "reports" / "baselines")
    assert len({manifest.request.head for manifest in baselines}) == 6
    assert set(made_anew(ROOT)) == set(), "run: make docs"
    assert len(render_summary(baselines).splitlines()) <= 2 + 12


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the pages of results and the baselines, to be changed."""
    shutil.copytree(ROOT / "reports" / "baselines", tmp_path / "reports" / "baselines")
    for page in RESULTS:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / page, tmp_path / page)
    return tmp_path


@pytest.mark.parametrize("page", RESULTS)
def test_a_page_of_results_that_is_stale_is_seen_and_mended(page, project):
    def results(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(DOCS / "results.py"), *words]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    (baseline,) = (project / "reports" / "baselines" / "auto").glob("text-classification.json")
    assert results("--check").returncode == 0
    baseline.write_text(re.sub(r'"ratio": 0\.\d+', '"ratio": 0.987654', baseline.read_text(encoding="utf-8")))

    stale = results("--check")

    assert (stale.returncode, page in stale.stderr, "run: make docs" in stale.stderr) == (1, True, True)
    assert (project / page).read_bytes() == (ROOT / page).read_bytes()
    assert results().returncode == 0
    assert "0.988" in (project / page).read_text(encoding="utf-8")
    assert results("--check").returncode == 0


def test_what_ci_runs_looks_for_stale_results():
    assert re.search(r"^check: .*\n(\t.*\n)*\t.*docs/results\.py --check$", MAKEFILE, re.MULTILINE)


def test_the_verdict_of_a_row_is_that_of_its_own_model():
    baselines = read_baselines(ROOT / "reports" / "baselines")
    for manifest in baselines:
        judged = next((f"[**{each.pipeline}**]" for each in manifest.candidates if each.chosen), ".json)")
        (row,) = [line for line in render_glance([manifest]).splitlines() if judged in line]
        assert row.endswith(f" {manifest.verdict.outcome} |")
    rows = [line for line in render_glance(baselines).splitlines() if ".json)" in line]
    assert {row.split(" | ")[-1] for row in rows} == {"passed |", "failed |", "unverified |"}


def test_every_model_of_every_baseline_has_its_row():
    baselines = read_baselines(ROOT / "reports" / "baselines")
    rows = [line for line in render_glance(baselines).splitlines() if line.startswith("| ") and ".json)" in line]
    assert len(rows) == sum(len(pipelines_of(manifest)) for manifest in baselines)
    assert max(row.count("█") for row in rows) == BAR


@pytest.mark.parametrize(
    ("share", "shown"), [(1.0, "█" * BAR), (0.5, "█" * 6), (0.0, "▏"), (1 / 96, "▏"), (13 / 96, "█▋")]
)
def test_a_bar_is_as_long_as_its_share(share, shown):
    assert bar(share) == shown


def test_every_committed_manifest_passed_or_lacks_its_times_alone():
    for manifest in read_baselines(ROOT / "reports" / "baselines"):
        missing = {check.name for check in manifest.verdict.checks if check.outcome != "passed"}
        assert missing == ({"min_speedup"} if untimed(manifest) else set())
        assert manifest.verdict.outcome == ("unverified" if missing else "passed")


@pytest.mark.parametrize(("page", "block"), WHOLE_YAML)
def test_a_pipeline_that_a_page_shows_is_valid(page, block):
    pipeline = parse_pipeline(yaml.safe_load(block), name="x", where=page)
    assert pipeline.stages or pipeline.candidates
    assert pipeline.gates.model_dump(exclude_unset=True)


@pytest.mark.parametrize(("page", "block"), SWEEPS)
def test_a_sweep_that_a_page_shows_has_points(page, block):
    matrix = Matrix(**yaml.safe_load(block))
    assert spans_of(matrix, page) if matrix.search else len(points_of(matrix, page)) > 1


@pytest.mark.parametrize(("page", "block"), PIECES)
def test_a_part_of_a_pipeline_that_a_page_shows_has_known_stages_and_parameters(page, block):
    for entry in yaml.safe_load(block)["stages"]:
        parse_step(entry, where=page)


ORDERS = [
    ["export", "fuse", "quantize_static"],
    [{"export": {"lean": True}}, "fuse"],
    ["export", "quantize_dynamic", "quantize_static"],
    ["export", "convert_openvino", {"reshape_openvino": {"tokens": 128}}, "quantize_openvino"],
    ["export", "convert_openvino", {"reshape_openvino": {"tokens": 128}}, "attach_tokenizer"],
    ["prune_weights", "prune", "export"],
    ["prune_weights", "distill", "export"],
    ["prune_weights", "train_quantized", "export"],
    ["prune", {"prune_vocabulary": {"corpus": "texts.txt"}}, "export"],
]
"""The orders that docs/guide/pipelines.md says are refused."""


@pytest.mark.parametrize("stages", ORDERS)
def test_an_order_that_the_guide_says_is_refused_is_refused(stages):
    target = "openvino" if "convert_openvino" in stages else "cpu"
    with pytest.raises(RequestError):
        parse_pipeline({"target": target, "stages": stages}, name="x", where="x")


def test_the_examples_are_of_stages_and_load():
    for name, text in EXAMPLES.items():
        assert parse_step(yaml.safe_load(text), where="EXAMPLES").stage == name


@pytest.mark.parametrize(("page", "line"), commands("optimize"))
def test_an_optimize_command_that_a_page_shows_parses(page, line):
    """Names of commands and options are known; what stands behind them is the reader's own."""
    command, words = COMMANDS, shlex.split(line, comments=True)[1:]
    while words and getattr(command, "commands", None) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    alone = ([], ["--help"], ["-h"], ["--version"], ["--install-completion"])
    assert command is not COMMANDS or words in alone, f"{page}: no such command"
    options = {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words:
        assert not re.match(r"--?[a-z]", word) or word.partition("=")[0] in {*options, "-h", "--help", "--version"}, (
            page
        )
    pipelines = [value for name, value in itertools.pairwise(words) if name == "--pipeline"]
    assert {each for each in pipelines if not each.endswith(".yaml")} <= {*shipped_pipelines(), "auto", "cpu-statik"}


@pytest.mark.parametrize(("page", "line"), commands("make"))
def test_a_make_command_that_a_page_shows_exists(page, line):
    target, *assignments = shlex.split(line, comments=True)[1:]
    assert re.search(rf"^{target}: .*## ", MAKEFILE, re.MULTILINE), page
    for name in (each.partition("=")[0] for each in assignments):
        assert re.search(rf"^{name} \?=", MAKEFILE, re.MULTILINE), f"{page}: {name}"


@pytest.mark.parametrize("page", sorted(set(PAGE_FILES) - HISTORY))
def test_a_page_names_no_data_or_place_that_a_reader_cannot_have(page):
    assert not [place for place in PRIVATE if place in PAGE_FILES[page]]


@pytest.mark.parametrize("page", sorted(PAGE_FILES))
def test_what_a_page_links_to_is_there(page):
    for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)", PAGE_FILES[page]):
        assert ((ROOT / page).parent / link).exists(), link


def test_every_shipped_pipeline_is_in_the_guide():
    guide = "".join(text for page, text in PAGE_FILES.items() if page.startswith("docs/guide/"))
    targets = {load_pipeline(name).target for name in shipped_pipelines()} - {ANY_TARGET}
    assert {name for name in shipped_pipelines() if f"`{name}`" not in guide} == set()
    assert {name for name in targets if f"guide/{name}.md" not in PAGE_FILES["docs/index.md"]} == set()


def test_the_readme_is_short_and_its_pictures_are_small():
    assert len(PAGE_FILES["README.md"].encode()) <= README_BYTES
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE_FILES["README.md"])
    assert pictures
    assert all((ROOT / picture).stat().st_size < PICTURE_BYTES for picture in pictures)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_the_tree_of_the_architecture_names_every_stage_as_present(name):
    assert re.search(rf"\b{name}\.py(?!°)", PAGE_FILES["docs/develop/architecture.md"])


def test_the_tree_of_the_architecture_names_every_module_and_folder_of_the_package():
    tree = PAGE_FILES["docs/develop/architecture.md"]
    present = {path.name for path in (ROOT / "optimize").iterdir() if path.suffix == ".py"}
    folders = {f"{path.name}/" for path in (ROOT / "optimize").iterdir() if (path / "__init__.py").is_file()}
    assert {name for name in present | folders if name not in tree} == set()


def test_the_stage_that_the_guide_adds_is_a_stage():
    code, test, *_ = blocks("docs/develop/adding.md", "python")
    space: dict[str, object] = {}
    exec(compile(code, "adding.md", "exec"), space)
    compile(test, "adding.md", "exec")
    assert space["STAGE"].takes == "onnx"
    assert all(field.description for field in space["Params"].model_fields.values())


@pytest.mark.parametrize("page", [page for page in PAGE_FILES if blocks(page, "python")])
def test_the_python_of_a_page_compiles(page):
    for block in blocks(page, "python"):
        compile(block, page, "exec")


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra dev")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "guide" / "quickstart.html").is_file()


def test_every_function_that_the_walk_names_is_there():
    steps = re.findall(r"^\d+\. `(optimize/\S+\.py): (\w+)`", PAGE_FILES["docs/develop/walk.md"], re.MULTILINE)
    assert len(steps) > 30
    absent = [
        (file, name)
        for file, name in steps
        if not re.search(rf"^ *def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert absent == []
