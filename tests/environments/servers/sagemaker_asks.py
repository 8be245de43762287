"""Asks a model by the toolkit of SageMaker's containers, as its model server does: FOLDER INPUTS-AS-JSON."""

import json
import sys
from types import SimpleNamespace
from typing import Any

from sagemaker_inference.default_handler_service import DefaultHandlerService


class Context:
    """What the model server tells of a request, and is told of the response."""

    def __init__(self, folder: str) -> None:
        self.system_properties = {"model_dir": folder}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self.request_processor = [SimpleNamespace(get_request_properties=lambda: headers)]
        self.status = 200

    def set_response_content_type(self, _: int, kind: str) -> None:
        self.kind = kind

    def set_response_status(self, code: int, phrase: str) -> None:
        self.status = code


def ask(body: Any) -> tuple[int, str]:
    context = Context(sys.argv[1])
    (said,) = service.handle([{"body": json.dumps(body).encode()}], context)
    return context.status, said


service = DefaultHandlerService()
sys.path.insert(0, f"{sys.argv[1]}/code")
service.initialize(Context(sys.argv[1]))
status, said = ask({"inputs": json.loads(sys.argv[2])})
wrong = ask({"inputs": {"texts": "A."}})
print(json.dumps({"said": json.loads(said), "status": status, "wrong": [wrong[0], wrong[1].splitlines()[0]]}))
