"""Token ids from a runtime's forward pass: sampling, stops, limits, prompts read in chunks, and prompt lookup."""
