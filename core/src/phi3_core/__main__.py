"""``python -m phi3_core`` runs the command ``phi3``."""

import sys

from .cli import main

sys.exit(main())
