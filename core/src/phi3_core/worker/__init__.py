"""Worker processes, in which backends run: the host's side, the worker's side, and the protocol."""
