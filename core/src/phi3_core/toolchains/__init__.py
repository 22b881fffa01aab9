"""External exporters, each in a virtual environment of its own in the store."""
