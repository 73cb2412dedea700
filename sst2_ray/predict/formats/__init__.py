"""Formats that runtimes other than torch load: ONNX and OpenVINO, in fp32, fp16 and int8."""
