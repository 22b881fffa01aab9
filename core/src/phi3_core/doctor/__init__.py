"""What ``phi3 doctor`` does: examine the machine and what is installed, and generate on every device."""
