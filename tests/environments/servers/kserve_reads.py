"""Reads an InferenceService by the classes of KServe and writes it again; what they do not know is lost: FILE."""

import json
import sys
from pathlib import Path

import kserve
import yaml
from kserve import V1beta1InferenceService
from kubernetes.client import ApiClient, models

client = ApiClient()
# The client of Kubernetes looks for classes of fields among its own.
vars(models).update(
    {name: value for name, value in vars(kserve).items() if name.startswith("V1") and name not in vars(models)}
)
content = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
answer = type("Answer", (), {"data": json.dumps(content)})
service = client.deserialize(answer, V1beta1InferenceService)
print(json.dumps({"given": content, "kept": client.sanitize_for_serialization(service)}))
