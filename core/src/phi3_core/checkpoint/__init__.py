"""Original weights: file formats, the Phi-3 architecture, and the reference forward pass."""
