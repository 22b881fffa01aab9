"""``python -m phi3_core`` is ``phi3``."""

import sys

from .cli import main

sys.exit(main())
