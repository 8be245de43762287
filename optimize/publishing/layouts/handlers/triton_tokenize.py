"""Triton's Python model that makes tokens of texts: the first step of the ensemble.

Requests that come together are padded to the longest of them, so that Triton can put them into one batch of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from answering import encode, feed_of, read_known
from triton_requests import inputs_of, padded


class TritonPythonModel:
    """What Triton makes once for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer."""
        self.known = read_known(Path(args["model_repository"]) / args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Token ids and masks of requests, each of one or more inputs."""
        feeds: dict[int, list[dict[str, Any]]] = {}
        failed: dict[int, str] = {}
        for place, request in enumerate(requests):
            try:
                feeds[place] = [self._feed(given) for given in inputs_of(self.known, request)]
            except ValueError as error:
                failed[place] = str(error)
        shapes = [feed["input_ids"].shape for each in feeds.values() for feed in each]
        most = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        responses = []
        for place in range(len(requests)):
            if place in failed:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(failed[place])))
                continue
            tensors = []
            for name, fill in (("input_ids", self.known.pad), ("attention_mask", 0)):
                tensors.append(pb_utils.Tensor(name, padded([feed[name] for feed in feeds[place]], most, fill)))
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _feed(self, given: Any) -> dict[str, Any]:
        """One input of the model, [1, T] or [1, choices, T]."""
        rows = encode(self.known, given)
        if self.known.task == "question-answering" and len(rows) > 1:
            raise ValueError(f"context: has more tokens than the {len(rows[0].ids)} of a window; send it in parts")
        feed: dict[str, Any] = feed_of(self.known, rows)
        return feed
