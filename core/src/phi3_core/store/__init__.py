"""The store: models on this machine, visible only when they are complete."""
