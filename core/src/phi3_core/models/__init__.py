"""Models on disk: what there is to choose from, where it lies, and whether it is whole."""
