"""A backend whose engine refuses an option, as changes of the parrot."""

CHOOSY = """
from phi3_core import UsageError

@hookimpl
def load(artifact, device, options):
    if "SPEED" in options:
        raise UsageError("choosy has no option SPEED")
    return Engine()
"""
