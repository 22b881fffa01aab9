"""What every backend's quantization shares: mapped weights, rounding, calibration and the quality report."""
