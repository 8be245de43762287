"""What a call costs beyond the session's own time: `python tests/loads/overhead.py RUN CHECKPOINT [TEXTS]`.

Rounds are interleaved, each way of asking in turn, so that what else runs falls on all alike; what is shown are medians
of ratios to the bare session's time for the same text, whose tokens it is handed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import optimize
from optimize.evaluate.predict import collate

ROUNDS = 300


def main(run: str, checkpoint: str, texts: str | None = None) -> None:
    """Print the medians."""
    from transformers import AutoTokenizer, pipeline

    model = optimize.load(run)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    piped = pipeline(model.head.name, model=checkpoint, tokenizer=tokenizer, device="cpu")
    lines = Path(texts).read_text(encoding="utf-8").splitlines() if texts else ['{"text": "A fine, quiet film."}']
    asked = [json.loads(line)["text"] for line in lines[:: max(1, len(lines) // ROUNDS)]][:ROUNDS]

    def bare(text: str) -> float:
        feature = model.ask(text, model.options({})).features[0]
        feed = collate([feature], pad_id=0)
        began = time.perf_counter()
        model.session(feed)
        return time.perf_counter() - began

    def timed(act: object, text: str) -> float:
        began = time.perf_counter()
        act(text)
        return time.perf_counter() - began

    ways = {
        "tokenization alone": lambda text: timed(model.known.tokens.whole, text),
        "load(...)(text)": lambda text: timed(model, text),
        "transformers.pipeline, PyTorch FP32": lambda text: timed(piped, text),
        "its model alone": lambda text: _forward(piped, tokenizer, text),
    }
    for text in asked[:5]:
        bare(text), [way(text) for way in ways.values()]
    times: dict[str, list[float]] = {name: [] for name in ways} | {"bare": []}
    for text in asked:
        times["bare"].append(bare(text))
        for name, way in ways.items():
            times[name].append(way(text))
    print(f"bare session: median {statistics.median(times['bare']) * 1e3:.2f} ms over {len(asked)} texts")
    for name in ways:
        ratios = [each / base for each, base in zip(times[name], times["bare"], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f}x the bare session")


def _forward(piped: object, tokenizer: object, text: str) -> float:
    import torch

    tokens = tokenizer(text, return_tensors="pt", truncation=True)
    feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        began = time.perf_counter()
        piped.model(**feed)
        return time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
