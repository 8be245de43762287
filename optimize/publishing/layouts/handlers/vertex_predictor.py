"""The model as a predictor of Vertex AI's custom prediction routines: instances in, predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from answering import open_model
from google.cloud.aiplatform.prediction.predictor import Predictor
from google.cloud.aiplatform.utils import prediction_utils


class Answering(Predictor):
    """Each instance is a text, or an object of the task's fields."""

    def load(self, artifacts_uri: str) -> None:
        """Open the model of a folder or bucket, once it is copied here; without one, that beside the code."""
        folder = Path(__file__).parent / "model"
        if artifacts_uri:
            prediction_utils.download_model_artifacts(artifacts_uri)
            folder = Path.cwd()
        self.answer = open_model(folder)

    def predict(self, instances: dict[str, Any]) -> dict[str, Any]:
        """Answer to each instance."""
        return {"predictions": [self.answer(given) for given in instances["instances"]]}
