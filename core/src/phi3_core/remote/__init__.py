"""A running server of the same user, which answers instead of a model that would have to be loaded."""
