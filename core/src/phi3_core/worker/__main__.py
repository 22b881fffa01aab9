"""``python -m phi3_core.worker HANDLE [HOST]``, the command by which :mod:`phi3_core.worker.host` starts a worker."""

import sys

from .child import main

main(*map(int, sys.argv[1:]))
