"""ONNX files, read and written without the package onnx."""
