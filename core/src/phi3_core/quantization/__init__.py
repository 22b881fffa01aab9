"""Quantization shared by all backends: calibration, bit allocation, scales and rounding."""
