"""What processors do, as commands print it."""

from __future__ import annotations

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from phi3_core.activity.values import Activity


def words(activity: Activity) -> list[str]:
    """Return the shares that the system tells, each as ``NPU 80 %``."""
    found = []
    if activity.cpu is not None:
        own = "" if activity.engine_cpu is None else f" (engine {percent(activity.engine_cpu)})"
        found.append(f"CPU {percent(activity.cpu)}{own}")
    for name, share in (("GPU", activity.gpu), ("NPU", activity.npu)):
        if share is not None:
            found.append(f"{name} {percent(share)}")
    return found


def percent(share: float | None) -> str:
    """Return a share as a percentage; None as a dash."""
    return "-" if share is None else f"{100 * share:.0f} %"
