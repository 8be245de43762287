"""What turns a float ONNX graph into an INT8 one: ranges, scales, groups, and which groups to leave in float."""
