"""Original weights: their files, the shapes of the Phi-3 family, and the reference forward pass."""
