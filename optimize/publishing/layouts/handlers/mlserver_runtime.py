"""The model as a runtime of MLServer, which KServe's `mlserver` runtime loads: texts in, answers as JSON out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from answering import open_model
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Answering(MLModel):
    """Inputs are tensors of the task's fields, each of one text an input; choices are JSON lists of texts."""

    async def load(self) -> bool:
        """Open the model beside its settings."""
        self.answer = open_model(Path(await get_model_uri(self._settings)))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer to each input."""
        columns = {each.name: StringCodec.decode_input(each) for each in payload.inputs}
        try:
            if "choices" in columns:
                columns["choices"] = [json.loads(each) for each in columns["choices"]]
            rows = zip(*columns.values(), strict=True)
            said = [self._said(dict(zip(columns, row, strict=True))) for row in rows]
        except ValueError as error:
            raise InferenceError(str(error)) from error
        output = StringCodec.encode_output("answer", said)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    def _said(self, given: Any) -> str:
        return json.dumps(self.answer(given), ensure_ascii=False)
