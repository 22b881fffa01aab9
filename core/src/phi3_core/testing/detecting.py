"""``detect``: fast, repeatable, and never an exception."""

from __future__ import annotations

import json
import time

import pytest

from phi3_core.config import time_limit
from phi3_core.errors import Phi3Error
from phi3_core.machine import this_machine
from phi3_core.values import Machine, Offer, Refusal, to_plain

from .base import ContractBase, blocked
from .lines import check_line
from .subject import Subject

LEAST_MEMORY = 1 << 27
"""Less memory, in bytes, than any device has that could hold a model."""
MACHINES = (
    Machine(os="linux", architecture="riscv64", memory_bytes=1 << 30),
    Machine(os="windows", architecture="arm64", memory_bytes=1 << 34),
    Machine(os="macos", architecture="x86_64", memory_bytes=1 << 34, on_battery=True),
    Machine(os="haiku", architecture="sparc", memory_bytes=1 << 28),
)


class Detecting(ContractBase):
    """The devices that the backend offers, and its refusals."""

    @pytest.fixture
    def detected(self, subject: Subject, hooks: tuple[str, ...]) -> list[Offer | Refusal]:
        """What ``detect`` answers."""
        try:
            return subject.answers
        except Phi3Error as error:
            blocked("detect", error)

    def test_detect_offers_or_refuses(self, subject: Subject, hooks: tuple[str, ...]) -> None:
        """There is an answer: a device, or a reason why there is none."""
        assert subject.answers, "detect returned nothing: return a Refusal with the reason why there is no device"

    def test_detect_is_fast(self, subject: Subject, detected: list[Offer | Refusal]) -> None:
        """A new process answers within half of the time limit, which slower machines need."""
        limit, took = time_limit("detect") / 2, subject.detect_s
        if took >= limit:  # the first on this machine may have files to read
            with subject.start() as worker:
                _ = worker.hooks
                begun = time.monotonic()
                worker.call("detect", limit_s=time_limit("detect"), machine=this_machine())
                took = time.monotonic() - begun
        assert took < limit, f"detect took {took:.1f} s, more than {limit:g} s"

    def test_detect_is_repeatable(self, subject: Subject, detected: list[Offer | Refusal]) -> None:
        """The same answers again, in the same process and in a new one."""
        assert subject.detect() == detected
        with subject.start() as worker:
            answers = worker.call("detect", limit_s=time_limit("detect"), machine=this_machine())
        assert [each.get("offer") or each["refusal"] for each in answers] == to_plain(detected)

    @pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.os}-{machine.architecture}")
    def test_detect_refuses_instead_of_raising(
        self, subject: Subject, detected: list[Offer | Refusal], machine: Machine
    ) -> None:
        """On a machine that the backend is not for, too."""
        subject.detect(machine)

    def test_detect_survives_json(self, detected: list[Offer | Refusal]) -> None:
        """Answers are kept in a file of UTF-8 until something on the machine changes."""
        for answer in detected:
            text = json.dumps(to_plain(answer), ensure_ascii=False)
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                pytest.fail(f"{answer} cannot be written as UTF-8: {error.reason}", pytrace=False)

    def test_refusals_have_one_line(self, detected: list[Offer | Refusal]) -> None:
        """They are shown in a table and in error messages, each followed by other words."""
        for answer in detected:
            if isinstance(answer, Refusal):
                check_line(answer.reason, "the reason")
                check_line(answer.remedy, "the remedy")
                assert not answer.reason.endswith("."), f"{answer.reason!r} ends with a full stop"

    def test_devices_have_one_line(self, detected: list[Offer | Refusal]) -> None:
        """Their names, drivers and notes are shown in tables."""
        for answer in detected:
            if isinstance(answer, Offer):
                device = answer.device
                for what, text in (("id", device.id), ("name", device.name), ("driver", device.driver)):
                    check_line(text, f"the {what} of a device")
                check_line(answer.notes, f"the notes on {device.id}")

    def test_memory_is_in_bytes(self, detected: list[Offer | Refusal]) -> None:
        """Core tells by it whether a model fits."""
        for answer in detected:
            memory = answer.device.memory_bytes if isinstance(answer, Offer) else None
            if isinstance(answer, Offer) and memory is not None:
                assert memory >= LEAST_MEMORY, f"{answer.device} has {memory} bytes of memory: is that another unit?"
