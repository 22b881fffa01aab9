"""``diagnose``: findings instead of exceptions."""

from __future__ import annotations

import time

from phi3_core.config import time_limit
from phi3_core.machine import this_machine

from .base import ContractBase
from .lines import check_line
from .subject import Subject


class Diagnosing(ContractBase):
    """What ``phi3 doctor`` shows of the backend."""

    def test_diagnose_answers(self, subject: Subject, hooks: tuple[str, ...]) -> None:
        """With findings, in half of the time limit, whether the device is usable or not."""
        self.needs(subject, "diagnose")
        limit = time_limit("diagnose")
        with subject.start() as worker:
            _ = worker.hooks
            begun = time.monotonic()
            findings = worker.call("diagnose", limit_s=limit, machine=this_machine())
            took = time.monotonic() - begun
        assert took < limit / 2, f"diagnose took {took:.1f} s, more than {limit / 2:g} s"
        for finding in findings:
            check_line(finding["message"], "the finding")
            check_line(finding["remedy"], "the remedy")
