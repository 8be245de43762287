"""Reads an InferenceService by the classes of KServe and writes it again; what they do not know is lost: FILE."""

import json
import sys
from pathlib import Path

import yaml
from kserve import V1beta1InferenceService
from kubernetes.client import ApiClient

client = ApiClient()
content = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
service = client.deserialize(json.dumps(content), V1beta1InferenceService, "application/json")
print(json.dumps({"given": content, "kept": client.sanitize_for_serialization(service)}))
