"""The exporters of others, each in an environment of its own under the store."""
