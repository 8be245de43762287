"""For OpenVINO Model Server: one graph from text to outputs, which the stage `attach_tokenizer` makes.

The server brings OpenVINO Tokenizers along and loads them by itself. It gives the graph's outputs; what they say in
words is the client's to look up in `config.json`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import VERSION, Layout, model_name, move_into
from optimize.publishing.layouts.served import EXAMPLES
from optimize.report.markdown import code_block

FOLDER = "ovms"
STAGE = "attach_tokenizer"
GRAPH = "openvino_end_to_end"
HEADS = ("text-classification", "token-classification", "feature-extraction", "fill-mask")
"""Those whose inputs are one text: others are read in pairs or windows, which no graph makes."""


def arrange(folder: Path, record: Manifest) -> str:
    """Make `ovms/` a folder of models with its configuration."""
    inner, root, name = move_into(folder, ".model"), folder / FOLDER, model_name(record)
    place = root / name / VERSION
    place.mkdir(parents=True)
    for ending in (".xml", ".bin"):
        (inner / f"{GRAPH}{ending}").rename(place / f"model{ending}")
    (inner / "config.json").rename(root / name / "labels.json")
    shutil.rmtree(inner)
    # Relative to the file of the configuration, wherever it is mounted.
    config = {"name": name, "base_path": name, "plugin_config": {"PERFORMANCE_HINT": "LATENCY"}}
    (root / "config.json").write_text(json.dumps({"model_config_list": [{"config": config}]}, indent=2) + "\n")
    asked = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [EXAMPLES["text"]]}]}
    lines = [
        "docker run --rm -p 8000:8000 -v PATH/ovms:/models openvino/model_server:latest "
        "--config_path /models/config.json --rest_port 8000",
        f"curl localhost:8000/v2/models/{name}/infer -d '{json.dumps(asked)}'",
    ]
    text = (
        f"`{FOLDER}/` holds `{name}` for OpenVINO Model Server, the tokenizer in the graph: texts go in, and the "
        f"model's outputs come out; `{name}/labels.json` names the classes.\n\n" + code_block("\n".join(lines), "sh")
    )
    (root / "README.md").write_text(f"# {name}, for OpenVINO Model Server\n\n{text}\n", encoding="utf-8")
    return text


def refuses(record: Manifest) -> str | None:
    """Text goes in, so the tokenizer has to be in the graph."""
    if not any(stage.stage == STAGE for stage in record.stages):
        return f"needs the tokenizer in the graph; put '{STAGE}' at the end of the pipeline"
    return None


LAYOUT = Layout(
    arrange=arrange,
    summary="For OpenVINO Model Server, the tokenizer in the graph",
    kinds=("openvino",),
    heads=HEADS,
    refuses=refuses,
)
