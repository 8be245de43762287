"""Triton's Python model that makes answers of outputs: the last step of the ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from answering import answer, encode, read_known
from triton_requests import GIVEN, read


class TritonPythonModel:
    """What Triton makes once for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer, and what the outputs are called."""
        self.known = read_known(Path(args["model_repository"]) / args["model_version"])
        self.outputs: list[str] = self.known.settings["outputs"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers as JSON, one for each input of a request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        names = (GIVEN, *self.outputs)
        found = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}
        said = []
        try:
            for given, places in read(found.pop(GIVEN)):
                rows = encode(self.known, given)
                outputs = {name: array[places] for name, array in found.items()}
                said.append(json.dumps(answer(self.known, given, rows, outputs), ensure_ascii=False))
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        # [inputs, 1]: one text each
        array = np.array([each.encode() for each in said], dtype=np.object_)[:, None]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("answer", array)])
