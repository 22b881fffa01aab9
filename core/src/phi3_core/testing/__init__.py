"""Test utilities for authors of backends."""
