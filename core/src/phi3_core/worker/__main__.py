"""``python -m phi3_core.worker HANDLE``, the command by which :mod:`phi3_core.worker.host` starts a worker."""

import sys

from .child import main

main(int(sys.argv[1]))
