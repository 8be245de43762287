"""For Google's Vertex AI: a predictor for its custom prediction routines, with the model beside it.

`LocalModel.build_cpr_model` of google-cloud-aiplatform makes the container; instances go in, predictions come out.
"""

from __future__ import annotations

import json
from pathlib import Path

from optimize.manifest import Manifest
from optimize.publishing.layouts.layout import Layout, model_name, move_into, refuse_fixed
from optimize.publishing.layouts.served import example_of, write_handler, write_requirements, write_settings
from optimize.report.markdown import code_block

FOLDER, MODELS = "vertex", "model"
PREDICTION = "google-cloud-aiplatform[prediction]"


def arrange(folder: Path, record: Manifest) -> str:
    """Make `vertex/` the source of a container, and `vertex/model` the artifacts of a model."""
    inner, root, name = move_into(folder, f"{FOLDER}/{MODELS}"), folder / FOLDER, model_name(record)
    write_settings(inner, record)
    write_handler(root, "vertex_predictor.py>predictor.py")
    write_requirements(root / "requirements.txt", record, [PREDICTION])
    lines = [
        "from google.cloud.aiplatform.prediction import LocalModel",
        "from predictor import Answering  # with PATH/vertex on Python's path",
        "",
        f'image = "REGION-docker.pkg.dev/PROJECT/REPOSITORY/{name}"',
        'model = LocalModel.build_cpr_model("PATH/vertex", image, predictor=Answering,',
        '                                   requirements_path="PATH/vertex/requirements.txt")',
    ]
    text = (
        f"`{FOLDER}/` is the source of a container for Vertex AI. It has the model in it; with an artifact URI it "
        f"takes that instead, a copy of `{FOLDER}/{MODELS}`.\n\n{code_block(chr(10).join(lines), 'python')}\n\n"
        f"Requests are `{json.dumps({'instances': [example_of(record)]})}`."
    )
    (root / "README.md").write_text(f"# {name}, for Vertex AI\n\n{text}\n", encoding="utf-8")
    return text


LAYOUT = Layout(arrange=arrange, summary="For Vertex AI: a predictor with its model", refuses=refuse_fixed)
