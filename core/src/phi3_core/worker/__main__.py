"""``python -m phi3_core.worker HANDLE``: started by :mod:`phi3_core.worker.host`, of no use by hand."""

import sys

from .child import main

main(int(sys.argv[1]))
