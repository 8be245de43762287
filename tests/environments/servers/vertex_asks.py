"""Asks Vertex AI's own server of custom prediction routines, in its process: FOLDER INSTANCES-AS-JSON."""

import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
os.environ |= {
    "HANDLER_MODULE": "google.cloud.aiplatform.prediction.handler",
    "HANDLER_CLASS": "PredictionHandler",
    "PREDICTOR_MODULE": "predictor",
    "PREDICTOR_CLASS": "Answering",
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
}
sys.path.insert(0, str(folder))

from google.cloud.aiplatform.prediction.model_server import CprModelServer  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

client = TestClient(CprModelServer().app)
client.get("/health").raise_for_status()
said = client.post("/predict", json={"instances": json.loads(sys.argv[2])})
wrong = client.post("/predict", json={"instances": [{"texts": "A."}]})
print(json.dumps({"said": said.json()["predictions"], "wrong": [wrong.status_code, wrong.json()]}))
