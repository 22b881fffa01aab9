"""A reader and a writer of ONNX files that do not need the package ``onnx``."""
