"""What the authors of backends test with."""
