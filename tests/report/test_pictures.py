from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from report.conftest import (
    GATES,
    REQUEST,
    SENSITIVITY,
    latency,
    make_manifest,
    measurement,
    sensitivity_row,
    stages_with,
)

from optimize.report.page import render
from optimize.report.pictures import canvas
from optimize.report.pictures.draw import LAYERS, OVERVIEW, Picture, draw
from optimize.report.pictures.draw import SENSITIVITY as SENSITIVITY_FILE
from optimize.report.pictures.layers import draw_layers
from optimize.report.pictures.overview import draw_overview, points_of
from optimize.report.pictures.sensitivity import COLOURS, draw_sensitivity, kind_of, split_layer

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figure(monkeypatch):
    """Draws into a figure that can be looked into, instead of a file."""

    def capture(height_inches, paint):
        matplotlib.rcParams.update(canvas.SETTINGS)
        made = Figure(figsize=(canvas.WIDTH_INCHES, height_inches), dpi=canvas.DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(made)
        paint(made)
        made.draw_without_rendering()
        return made

    monkeypatch.setattr(canvas, "draw_png", capture)
    with matplotlib.rc_context():
        yield


def models_at(*spots):
    """Models at these milliseconds and scores, after the reference at 30 ms."""
    slow = measurement("pytorch-fp32", 0.9, 200_000_000, [latency("1x128", 30.0, pytorch_fp32=1.0)])
    others = [
        measurement(f"candidate {number}", score, 60_000_000, [latency("1x128", ms, pytorch_fp32=30 / ms)])
        for number, (ms, score) in enumerate(spots)
    ]
    return make_manifest(measurements=[slow, *others])


def labels(axes):
    return [text for text in axes.texts if text.get_text()]


def test_pictures_are_pngs_of_one_width():
    contents = [picture.content for picture in draw(make_manifest(stages=stages_with(sensitivity=SENSITIVITY)))]

    assert len(contents) == 2
    assert {content[:8] for content in contents} == {PNG}
    assert {int.from_bytes(content[16:20], "big") for content in contents} == {1440}


def test_the_same_run_gives_the_same_bytes():
    made = [draw(make_manifest(stages=stages_with(sensitivity=SENSITIVITY))) for _ in range(2)]

    assert made[0] == made[1]


def test_the_users_matplotlib_settings_neither_matter_nor_change():
    plain = draw_sensitivity(SENSITIVITY, title="x")

    with matplotlib.rc_context({"font.size": 30.0, "text.usetex": True, "savefig.transparent": True}):
        assert draw_sensitivity(SENSITIVITY, title="x") == plain
        assert matplotlib.rcParams["font.size"] == 30.0


def test_reading_a_report_does_not_wait_for_matplotlib():
    code = "import sys, optimize.report.write, optimize.report.card; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("rows", [[], [{"group": "x"}], [{"sqnr_db": 1.0}], [sensitivity_row("x", float("inf"))]])
def test_without_a_groups_sqnr_there_is_no_sensitivity_picture(rows):
    assert draw_sensitivity(rows, title="x") is None


def test_a_run_without_a_sensitivity_table_has_the_overview_alone(manifest):
    assert [picture.file for picture in draw(manifest)] == [OVERVIEW]
    assert SENSITIVITY_FILE != OVERVIEW


def test_what_was_only_built_has_no_picture(built_only):
    assert draw(built_only) == []


@pytest.mark.parametrize("change", [{"metric": None}, {"latency": [latency("1x16", 5.0)]}])
def test_one_model_with_both_measurements_is_no_overview(change):
    first = measurement("pytorch-fp32", 0.9, 200_000_000, [latency("1x128", 30.0)])
    second = {**measurement("export", 0.9, 200_000_000, [latency("1x128", 20.0)]), **change}

    assert draw_overview(make_manifest(measurements=[first, second]), title="x") is None


@pytest.mark.parametrize(("saved_us", "panels"), [(0.0, 1), (12.0, 2)])
def test_times_have_a_panel_only_where_there_are_some(saved_us, panels, figure):
    assert len(draw_sensitivity([sensitivity_row("x", saved_us=saved_us)], title="x").axes) == panels


def test_groups_stand_below_their_layer_in_the_order_of_the_graph(figure):
    axes = draw_sensitivity(SENSITIVITY[:5] + SENSITIVITY[-1:], title="x").axes[0]

    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[:3] == ["word_embeddings", "layer 0", "attention.q_lin+k_lin+v_lin"]
    assert names[-3:] == ["ffn.lin2", "", "classifier"]
    assert axes.yaxis_inverted()


def test_groups_in_float_are_hatched_and_say_so(figure):
    axes = draw_sensitivity(SENSITIVITY, title="x").axes[0]

    assert [bool(bar.get_hatch()) for bar in axes.patches] == [row["form"] == "float" for row in SENSITIVITY]
    assert [text.get_text() for text in axes.texts if "float" in text.get_text()] == ["9.5  left in float"]


def test_every_number_of_the_bars_is_inside_its_panel(figure):
    rows = [*SENSITIVITY, sensitivity_row("layer.6.ffn.lin1", 60.0, 1234.0, "float")]
    for axes in draw_sensitivity(rows, title="x").axes:
        ends = [text.get_window_extent().x1 for text in axes.texts]
        assert max(ends) <= axes.bbox.x1


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("layer.0.attention.q_lin+k_lin+v_lin", "attention input"),
        ("layer.0.attention.out_lin", "attention output"),
        ("layer.3.ffn.lin1", "FFN in"),
        ("layer.3.ffn.lin2", "FFN out"),
        ("word_embeddings+vocab_projector", "embedding"),
        ("pre_classifier", "head"),
    ],
)
def test_each_group_has_the_colour_of_its_kind(group, kind):
    assert kind_of(group) == kind
    assert kind in COLOURS


def test_a_groups_layer_is_read_off_its_name():
    assert split_layer("layer.11.ffn.lin1") == ("layer 11", "ffn.lin1")
    assert split_layer("classifier") == ("", "classifier")


def test_a_model_that_was_measured_under_two_names_is_one_point():
    run = models_at((20.0, 0.9), (20.0, 0.9))
    one = run.measurements[1].artifact_digest
    twin = run.measurements[2].model_copy(update={"artifact_digest": one})

    points = points_of(run.model_copy(update={"measurements": [*run.measurements[:2], twin]}))

    assert [point.names for point in points] == [("pytorch-fp32",), ("candidate 0", "candidate 1")]


def test_a_points_interval_is_that_of_the_drop_turned_over():
    (_, point) = points_of(models_at((10.0, 0.895)))

    assert point.interval == pytest.approx((0.885, 0.905))


def test_labels_cover_neither_one_another_nor_leave_the_axes(figure):
    run = models_at((10.0, 0.897), (10.5, 0.896), (11.0, 0.8965), (14.0, 0.89), (20.0, 0.9), (21.0, 0.9))
    axes = draw_overview(run, title="x").axes[0]

    boxes = [text.get_window_extent() for text in labels(axes)]
    assert len(boxes) == 7
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_the_limits_are_drawn_where_the_gates_set_them(figure):
    request = {**REQUEST, "gates": {**GATES, "max_metric_drop": 0.005}}
    run = models_at((10.0, 0.897)).model_dump(by_alias=True) | {"request": request}

    lines = draw_overview(make_manifest(**run), title="x").axes[0].lines

    assert {line.get_label() for line in lines} == {"limit: 0.8950 or more", "limit: 1.5× the speed of pytorch-fp32"}
    assert [lines[0].get_ydata()[0], lines[1].get_xdata()[0]] == pytest.approx([0.895, 20.0])


def test_a_models_name_is_no_formula():
    source = {**make_manifest().source.model_dump(), "id": "a $x_$ {b} $"}

    assert [picture.file for picture in draw(make_manifest(source=source))] == [OVERVIEW]


def test_the_words_for_a_picture_say_what_was_measured(manifest):
    (picture,) = draw(manifest)

    assert picture.markdown == (
        "![accuracy against median latency at 1x128: pytorch-fp32 0.9000 at 30.0 ms; "
        "quantize_dynamic 0.8950 at 10.0 ms.](overview.png)"
    )
    assert Picture("x.png", "a [b]\nc", b"").markdown == "![a \\[b\\] c](x.png)"


LEFT = [
    {"layer": 0, "heads": 7, "heads_before": 12, "neurons": 896, "neurons_before": 1536},
    {"layer": 1, "heads": 12, "heads_before": 12, "neurons": 16, "neurons_before": 1536},
]


def test_each_layer_has_a_bar_for_what_is_left_within_one_for_what_was(figure):
    heads, neurons = draw_layers(LEFT, title="x").axes

    assert [bar.get_width() for bar in heads.patches] == [12, 7, 12, 12]
    assert [bar.get_width() for bar in neurons.patches] == [1536, 896, 1536, 16]
    assert [text.get_text() for text in labels(neurons)] == ["896 of 1,536", "16 of 1,536"]
    assert [text.get_text() for text in heads.get_yticklabels()] == ["layer 0", "layer 1"]
    assert heads.get_ylim()[0] > heads.get_ylim()[1]


def test_a_dropped_layer_has_a_bar_for_what_was_and_none_left(figure):
    dropped = {"layer": 2, "heads": 0, "heads_before": 12, "neurons": 0, "neurons_before": 1536}

    heads, neurons = draw_layers([*LEFT, dropped], title="x").axes

    assert [bar.get_width() for bar in heads.patches[-2:]] == [12, 0]
    assert [text.get_text() for text in labels(neurons)][-1] == "0 of 1,536"


def test_rows_that_count_no_layers_are_not_drawn():
    assert draw_layers([{"layer": 0, "heads": 3}], title="x") is None


def test_a_pruned_run_shows_its_layers_beside_their_table():
    made = make_manifest(stages=stages_with(layers=LEFT))
    picture = next(each for each in draw(made) if each.file == LAYERS)

    assert "layer 0 7 and 896; layer 1 12 and 16" in picture.alt
    assert picture.markdown in render(made, draw(made))
