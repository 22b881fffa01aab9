"""Backends run in processes of their own: the host's side, the child's side, and what they say to each other."""
