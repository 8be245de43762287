"""Facts about ONNX and OpenVINO graphs, and edits that change no answer."""
