"""Reads configurations of Triton by the protobuf of its client: FILES."""

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

found = [text_format.Parse(Path(path).read_text(encoding="utf-8"), ModelConfig()) for path in sys.argv[1:]]
print(json.dumps([json_format.MessageToDict(each, preserving_proto_field_name=True) for each in found]))
