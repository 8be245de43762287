"""For transformers.js, in browsers and Node: graphs in `onnx/`, by the names that the library takes for each `dtype`.

Names are those of transformers.js 3 and 4: `model.onnx` for fp32, `model_fp16.onnx`, `model_quantized.onnx` for q8,
which is the default in browsers.
"""

from __future__ import annotations

import json
from pathlib import Path

from optimize.artifact import model_files
from optimize.errors import RequestError
from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout
from optimize.publishing.layouts.served import EXAMPLES, inputs_of
from optimize.report.markdown import code_block
from optimize.report.remarks import is_int8

HEADS = ("feature-extraction", "fill-mask", "question-answering", "text-classification", "token-classification")
FOLDER = "onnx"
NAMES = {"q8": "model_quantized.onnx", "fp16": "model_fp16.onnx", "fp32": "model.onnx"}


def arrange(folder: Path, record: Manifest) -> str:
    """Move the graph into `onnx/` under the name of its data type."""
    files = model_files(folder, "onnx")
    if [path.name for path in files] != ["model.onnx"]:
        raise RequestError("--layout transformers.js: needs a graph of one file; take --layout optimum")
    dtype = dtype_of(record)
    (folder / FOLDER).mkdir()
    files[0].rename(folder / FOLDER / NAMES[dtype])
    asked = ", ".join(json.dumps(EXAMPLES[name]) for name in inputs_of(record))
    if record.request.head == "fill-mask":
        asked = '"A [MASK]."'
    lines = [
        'import { pipeline } from "@huggingface/transformers";',
        "",
        f'const model = await pipeline("{record.request.head}", "PATH", {{ dtype: "{dtype}" }});',
        f"console.log(await model({asked}));",
    ]
    return (
        f'The graph is `{FOLDER}/{NAMES[dtype]}`, which transformers.js takes for `dtype: "{dtype}"`. In Node and in '
        f"browsers, with `npm install @huggingface/transformers`:\n\n{code_block(chr(10).join(lines), 'js')}\n\n"
        "For a folder, set `env.localModelPath` to the one that holds it, and `env.allowRemoteModels = false`."
    )


def dtype_of(record: Manifest) -> str:
    """What transformers.js calls the data type of the weights."""
    if is_int8(record.measurements[-1]):
        return "q8"
    return "fp16" if "float16" in record.measurements[-1].size.by_dtype else "fp32"


def refuses(record: Manifest) -> str | None:
    """The library makes answers of the graph's hidden states, tags or spans; what it has no words for is refused."""
    if record.source.sentence is not None:
        return "makes embeddings of hidden states by itself; run the checkpoint without its modules, or take 'optimum'"
    if not record.measurements:
        return "needs to know the model's data type, and nothing was measured; run it without --build-only"
    return None


LAYOUT = Layout(
    arrange=arrange,
    summary="For transformers.js, in browsers and Node",
    kinds=("onnx",),
    heads=HEADS,
    refuses=refuses,
)
