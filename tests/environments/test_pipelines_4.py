"""Questions are answered as the pipeline of transformers 4.57 does, the last that has it: spans, scores, order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from environments.made import run_there, transformers_4

import optimize

pytestmark = [pytest.mark.environments, pytest.mark.timeout(1800)]

HEAD = "question-answering"
LONGEST = 48
ASK = """
import json, sys
from transformers import pipeline

ask = pipeline("question-answering", model=sys.argv[1], tokenizer=sys.argv[1], device="cpu")
cases = json.loads(open(sys.argv[2]).read())
print(json.dumps([ask(**given, **options) for given, options in cases], default=float))
"""
OPTIONS = (
    {},
    {"top_k": 4},
    {"top_k": 2, "align_to_words": False, "max_answer_len": 3},
    {"handle_impossible_answer": True, "top_k": 3},
    {"max_seq_len": LONGEST, "doc_stride": 16, "top_k": 3},
)


@pytest.fixture(scope="module")
def python() -> Path:
    return transformers_4()


def test_questions_are_answered_as_the_pipeline_does(python, exported_run, checkpoint, data_folder, tmp_path):
    lines = (data_folder(HEAD) / "test.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    rows = [{name: json.loads(line)[name] for name in ("question", "context")} for line in lines]
    rows.append({"question": rows[0]["question"], "context": " ".join(row["context"] for row in rows)})
    cases = [(row, options) for row in rows for options in OPTIONS]
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    model = optimize.load(exported_run(HEAD))

    expected = json.loads(run_there(python, "-c", ASK, checkpoint(HEAD), tmp_path / "cases.json").splitlines()[-1])

    for (row, options), said in zip(cases, expected, strict=True):
        given = model(row, **{"handle_impossible_answer": False, **options})
        ours, theirs = ([each] if isinstance(each, dict) else each for each in (given, said))
        assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], abs=1e-4)
        for one, other in zip(ours, theirs, strict=True):
            if all(abs(other["score"] - each["score"]) > 1e-4 for each in theirs if each is not other):
                assert (one["start"], one["end"], one["answer"]) == (other["start"], other["end"], other["answer"])
