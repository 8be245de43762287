"""Triton's Python model that makes tokens of texts: the first step of the ensemble.

Each input becomes a row of the graph, or one a window. Requests that come together are padded to the longest of them,
so that Triton can put them into one batch of the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from answering import encode, feed_of, read_known
from triton_requests import GIVEN, inputs_of, padded, written


class TritonPythonModel:
    """What Triton makes once for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer, and how many rows a request of the graph may have."""
        self.known = read_known(Path(args["model_repository"]) / args["model_version"])
        self.most = int(json.loads(args["model_config"])["max_batch_size"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Token ids and masks of requests, each of one or more inputs, and the inputs beside them."""
        found: dict[int, tuple[list[Any], list[dict[str, Any]]]] = {}
        failed: dict[int, str] = {}
        for place, request in enumerate(requests):
            try:
                inputs = inputs_of(self.known, request)
                found[place] = inputs, self._feeds(inputs)
            except ValueError as error:
                failed[place] = str(error)
        shapes = [feed["input_ids"].shape[1:] for _, feeds in found.values() for feed in feeds]
        most = [max(sizes) for sizes in zip(*shapes, strict=True)]
        responses = []
        for place in range(len(requests)):
            if place in failed:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(failed[place])))
                continue
            inputs, feeds = found[place]
            tensors = [pb_utils.Tensor(GIVEN, written(inputs, [len(feed["input_ids"]) for feed in feeds]))]
            for name, fill in (("input_ids", self.known.pad), ("attention_mask", 0)):
                tensors.append(pb_utils.Tensor(name, padded([feed[name] for feed in feeds], most, fill)))
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _feeds(self, inputs: list[Any]) -> list[dict[str, Any]]:
        """The rows of each input, [rows, T] or [1, choices, T]."""
        feeds = [feed_of(self.known, encode(self.known, given)) for given in inputs]
        rows = sum(len(feed["input_ids"]) for feed in feeds)
        if rows > self.most:
            raise ValueError(f"the request: has {rows} windows of at most {self.most}; send its contexts in parts")
        return feeds
