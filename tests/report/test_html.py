"""The page of HTML: what it says, in which order, and that it is safe, small and whole by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from comparing.cases import judged, right_but
from report.conftest import (
    GATES,
    REQUEST,
    SENSITIVITY,
    SOURCE,
    latency,
    make_manifest,
    measurement,
    metric,
    stages_with,
)
from report.pages import Page, answer, evidence_of, example
from tiers import EACH_HEAD

import optimize.report.html
from optimize.building import open_folder
from optimize.comparing.regressions import hold_against
from optimize.evaluate.judge import pad_id_of
from optimize.evaluate.saying import run_and_say
from optimize.heads import HEADS
from optimize.manifest import Manifest
from optimize.measure.subjects import Quality, examples_of
from optimize.report.html.evidence import Evidence
from optimize.report.html.page import render_html

MOST_BYTES = 2_000_000
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
LAYERS = [
    {"layer": layer, "heads": 12 - layer, "heads_before": 12, "neurons": 3072 - layer, "neurons_before": 3072}
    for layer in range(6)
]
CLASS = {"support": 40, "value": 0.8, "reference": 0.9, "drop": 0.1, "interval": (0.0, 0.2), "standard_error": 0.05}
STYLE = (Path(optimize.report.html.__file__).parent / "style.css").read_text(encoding="utf-8")


def with_classes(*names: str) -> list[dict]:
    """Measurements whose last one has F1 by class."""
    macro = {name: value for name, value in CLASS.items() if name != "support"}
    scores = metric(0.895, classes=[{"name": name, **CLASS} for name in names], macro_f1=macro)
    slow, fast = latency("1x128", 30.0, pytorch_fp32=1.0), latency("1x128", 10.0, pytorch_fp32=3.0)
    return [
        measurement("pytorch-fp32", 0.9, 200_000_000, [slow]),
        {**measurement("quantize_static", 0.895, 60_000_000, [fast]), "metric": scores},
    ]


@pytest.fixture(scope="module")
def full() -> Manifest:
    """A run of which everything is known."""
    tables = stages_with(sensitivity=SENSITIVITY, layers=LAYERS)
    return make_manifest(stages=tables, measurements=with_classes("good", "bad"))


@pytest.fixture(scope="module")
def page(full) -> Page:
    examples = [
        example("It was fine.", tokens=4),
        example("Kept its grip.", after="bad", tokens=9),
        example("A long, dull evening.", before="good", after="bad", gold="bad", tokens=30),
    ]
    return Page(render_html(full, evidence_of(full, *examples)))


def order(page: Page, *words: str) -> list[int]:
    text = page.text()
    return [text.index(each) for each in words]


def test_the_verdict_comes_first_in_words_and_everything_else_in_its_order(page):
    headings = [" ".join(data.split()) for path, data in page.texts if path and path[-1] in ("h1", "h2")]

    assert headings == [
        "Passed: every limit is met",
        "Accuracy against latency",
        "Latency",
        "Size",
        "Sensitivity and layers",
        "Where answers changed",
        "Calibration",
        "Classes",
        "Changed examples",
        "How it was made",
        "Where it was measured",
        "Reproduce",
    ]
    places = order(page, headings[0], "is 70% smaller", "runs 3.0 times as fast", "loses 0.0050 of accuracy")
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("outcomes", "outcome", "said"),
    [
        (("passed", "failed", "failed"), "failed", "Failed: 2 of 3 limits are not met"),
        (("failed", "unverified"), "failed", "Failed: 1 of 2 limits is not met"),
        (("passed", "unverified"), "unverified", "Not proven: 1 of 2 limits could not be confirmed"),
        ((), "unverified", "Not proven: no limit was set"),
    ],
)
def test_the_headline_counts_what_is_not_met(outcomes, outcome, said):
    checks = [
        {"name": "min_speedup", "limit": 1.5, "value": None, "outcome": each, "reason": f"it is {each}"}
        for each in outcomes
    ]
    manifest = make_manifest(verdict={"outcome": outcome, "checks": checks})
    page = Page(render_html(manifest, Evidence()))

    assert page.text("h1") == said
    reasons = [f"it is {each}" for each in dict.fromkeys(outcomes)]
    places = dict(zip(reasons, order(page, *reasons), strict=True))
    assert sorted(reasons, key=places.__getitem__) == sorted(
        reasons, key=["it is failed", "it is unverified", "it is passed"].index
    )


def test_nothing_outside_the_page_is_asked_for(page):
    for name, value in page.attributes():
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert value.startswith("#"), (name, value)
        assert "url(" not in value.replace("url(#", ""), (name, value)
    assert {"link", "img", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.elements)
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv")]
    assert policy.startswith("default-src 'none';")


def test_every_reference_within_the_page_has_its_place(page):
    ids = [value for name, value in page.attributes() if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {value[1:] for name, value in page.attributes() if name == "href"}
    wanted |= {each for name, value in page.attributes() for each in re.findall(r"url\(#([^)]+)\)", value)}
    wanted |= {value for name, value in page.attributes() if name == "aria-labelledby"}
    assert wanted <= set(ids)


def test_every_picture_says_in_words_what_it_shows(page):
    drawn = page.all("svg")
    assert len(drawn) >= 10
    assert all(each["role"] == "img" and each["aria-label"] for each in drawn)
    assert "pytorch-fp32: 0.9000 at 30.0 ms" in str(drawn[0]["aria-label"])


def test_all_runs_are_drawn_for_every_shape():
    shapes = ("1x16", "8x128")
    timings = [latency(shape, 3.0, pytorch_fp32=1.0) for shape in shapes]
    manifest = make_manifest(measurements=[measurement("pytorch-fp32", 0.9, 100, timings)])
    page = Page(render_html(manifest, evidence_of(manifest)))

    assert "1 × 16 tokens" in page.text("figcaption")
    assert "8 × 128 tokens" in page.text("figcaption")
    assert [value for _, value in page.attributes()].count("pytorch-fp32: median 3.60 ms of 40 runs") == 2


def test_what_each_step_took_away_is_said(page):
    assert "60.0 MB (−140.0 MB)" in page.text("td")


def test_light_and_dark_are_both_whole():
    roots = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"(--[\w-]+): ([^;]+);", each)) for each in roots)
    assert re.search(r"@media \(prefers-color-scheme: dark\) \{\s+:root", STYLE)
    assert light.keys() == dark.keys()
    assert light == printed
    assert all(light[name] != dark[name] for name in light)


def test_every_colour_that_is_used_is_defined(page):
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLE + " ".join(value for _, value in page.attributes())))
    assert used <= set(re.findall(r"(--[\w-]+):", STYLE))


def test_words_of_data_and_checkpoints_stay_words():
    classes = with_classes(f"good{HOSTILE}", "bad")
    device = {"cpu": HOSTILE, "features": [], "cores": 2, "memory_bytes": 2**30, "system": HOSTILE, "versions": {}}
    manifest = make_manifest(
        measurements=classes,
        stages=stages_with(sensitivity=[{**SENSITIVITY[0], "group": HOSTILE}, *SENSITIVITY[1:]]),
        source={**SOURCE, "id": HOSTILE},
        environment={**device, "gpu": HOSTILE},
    )
    asked = example(HOSTILE, after=HOSTILE, gold=HOSTILE)
    page = Page(render_html(manifest, evidence_of(manifest, asked, example(gold=HOSTILE, before="bad"))))

    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert "alert" not in page.text("script")
    assert not any(name.startswith("on") for name, _ in page.attributes())
    assert page.text("li").count(HOSTILE) == 4
    assert any(HOSTILE in value for name, value in page.attributes() if name == "aria-label")


def test_ten_thousand_examples_make_a_page_of_two_megabytes_at_most(full):
    text = "<" * 350 + "語" * 350
    lost = [example(text * 3, after="bad", tokens=each % 500 + 3) for each in range(10_000)]
    content = render_html(full, evidence_of(full, *lost))
    page = Page(content)

    assert len(content.encode()) <= MOST_BYTES
    shown = sum("data-kind" in each for each in page.all("li"))
    assert 100 <= shown <= 500
    assert "10,000 right before, wrong now" in page.text("p")
    assert f"{10_000 - shown:,} more are in the run's file of examples." in page.text("p")


def test_changed_examples_are_shown_the_worst_first():
    examples = [
        example("same"),
        example("mended", before="bad"),
        example("lost and doubtful", after="bad", result=answer("bad", 0.6, right=False)),
        example("lost and sure", after="bad", result=answer("bad", 0.99, right=False)),
        example("still wrong", before="bad", after="awful"),
    ]
    manifest = make_manifest()
    page = Page(render_html(manifest, evidence_of(manifest, *examples)))

    kinds = [str(each["data-kind"]) for each in page.all("li") if "data-kind" in each]
    assert kinds == ["lost", "lost", "wrong", "gained"]
    places = order(page, "lost and sure", "lost and doubtful", "still wrong", "mended")
    assert places == sorted(places)
    assert "same" not in [data.strip() for _, data in page.texts]
    assert [each["value"] for each in page.all("option")] == ["", "lost", "wrong", "gained"]


def test_numbers_do_not_flip_and_those_that_moved_most_come_first():
    scores = metric(0.895, name="spearman", p_value=None)
    measured = [{**each, "metric": scores} for each in with_classes()]
    manifest = make_manifest(measurements=measured)
    near = example("near", before="0.50", after="0.52", gold="3", reference=answer("0.50", None, right=None),
                   result=answer("0.52", None, right=None))  # fmt: skip
    far = near.model_copy(update={"texts": {"text": "far"}, "result": answer("-0.9", None, right=None)})
    page = Page(render_html(manifest, evidence_of(manifest, near, far)))

    assert order(page, "far", "near") == sorted(order(page, "far", "near"))
    assert "Answers are numbers, of which none flips" in page.text()
    assert "there is nothing to calibrate" in page.text()


def test_a_long_text_is_cut_around_its_answer():
    text = "a" * 2000 + " Lisbon " + "b" * 2000
    manifest = make_manifest()
    page = Page(render_html(manifest, evidence_of(manifest, example(text, before="Rome", after="Lisbon", gold="Rome"))))

    shown = next(data for path, data in page.texts if path[-1:] == ("p",) and "Lisbon" in data)
    assert len(shown.strip()) <= 702
    assert shown.strip()[0] == shown.strip()[-1] == "…"


def test_a_run_that_kept_no_texts_shows_none_and_says_so():
    manifest = make_manifest(request={**REQUEST, "no_texts": True})
    asked = example(after="bad", texts={}, gold=None, reference=answer(None), result=answer(None, right=False))
    page = Page(render_html(manifest, evidence_of(manifest, asked)))

    assert "The data's texts were kept out of this run" in page.text()
    assert "kept out of the report" in page.text("dd")
    assert "A fine film." not in page.text()
    assert "--no-texts" in page.text("code")


def test_a_run_of_an_earlier_version_says_what_it_did_not_keep(manifest):
    page = Page(render_html(manifest, Evidence()))

    assert "this run kept percentiles alone" in page.text()
    assert "this run kept no answers in words" in page.text()
    assert page.all("form") == []


def test_a_run_that_was_only_built_has_a_page(built_only):
    page = Page(render_html(built_only, Evidence()))

    assert page.text("h1") == "Not proven: nothing was measured"
    assert "Latency" not in page.text("h2")


def test_what_a_table_does_not_say_is_said_and_what_it_quotes_is_text():
    slow = {**latency("1x128", 30.0, pytorch_fp32=1.0), "unreliable": f"the machine was busy {HOSTILE} *now*"}
    page = render_html(make_manifest(measurements=[measurement("pytorch-fp32", 0.9, 100, [slow])]), Evidence())

    assert "Latency at 1x128 is not reliable (pytorch-fp32): the machine was busy" in Page(page).text()
    assert "*now*" in Page(page).text()
    assert HOSTILE not in page
    assert "<strong>not reliable</strong>" in page


def test_what_got_worse_comes_first(full):
    worse = hold_against(judged("baseline"), judged(answers={"quantize_dynamic": right_but(range(120))}))

    page = Page(render_html(full, Evidence(regression=worse)))

    assert page.text("h2").startswith("Since the last accepted run")
    assert "Something got worse." in page.text("section")
    assert "most of it at quantize_dynamic (+0.0170)" in page.text("table")


def test_the_same_run_gives_the_same_page(full):
    evidence = evidence_of(full, example(after="bad"), example())
    assert render_html(full, evidence) == render_html(full, evidence)


@pytest.mark.parametrize("name", EACH_HEAD)
def test_answers_of_every_head_are_shown_in_words(name, context, silent):
    here, head = context(name), HEADS[name]
    folder = here.reference.path
    session = open_folder("torch", folder, head=head, threads=1)
    spoken = run_and_say(session, head, here.tuning, pad_id=pad_id_of(folder), progress=silent)
    manifest = make_manifest(request={**REQUEST, "head": name, "gates": GATES})
    score = head.score(here.tuning, spoken.outputs.answers)
    of_model = Quality(manifest.measurements[0].metric, manifest.measurements[0].drift, score, spoken.said, here.tuning)
    examples = examples_of(of_model, of_model, head)

    assert len(examples) == len(here.tuning.gold)
    changed = [each.model_copy(update={"same": False}) for each in examples]
    page = Page(render_html(manifest, evidence_of(manifest, *changed)))
    assert sum("data-kind" in each for each in page.all("li")) == len(examples)
    for each in examples:
        assert each.texts
        assert each.tokens > 2
        assert each.result.answer in page.text("dd")
