"""Rank the offered devices, with the reason for each rank. Pure functions of the survey and the request."""

from __future__ import annotations

from attrs import field, frozen, validators

from .errors import NoDeviceError
from .surveys import Survey
from .values import KINDS, MATURITIES, PRECISIONS, Device, Offer

POLICIES = ("auto", "performance", "efficiency")
_ORDER = {
    "performance": ("dgpu", "gpu", "npu", "cpu"),
    "efficiency": ("npu", "gpu", "cpu", "dgpu"),
}


@frozen(kw_only=True)
class DeviceRequest:
    """The user's choice of device, precision and policy."""

    device: str = "auto"
    """``auto``, a backend, a kind, or ``backend:device``; case-insensitive."""
    precision: str | None = field(default=None, validator=validators.optional(validators.in_(PRECISIONS)))
    """One of the precisions; None for any."""
    policy: str = field(default="auto", validator=validators.in_(POLICIES))
    """One of :data:`POLICIES`; ``auto`` is ``efficiency`` on battery power, else ``performance``."""


@frozen(kw_only=True)
class Candidate:
    """A device that matches a request, with its rank."""

    device: Device
    precisions: tuple[str, ...]
    """The precisions that match the request, the backend's preferred one first."""
    rank: int | None
    """1 is the best; None for a device that is used only when the user names it."""
    why: str
    """The reason for the rank."""
    notes: str = ""
    layout: str = ""


def effective_policy(policy: str, *, on_battery: bool) -> tuple[str, str]:
    """Return the policy that ``policy`` stands for, and its description."""
    if policy != "auto":
        return policy, f"policy {policy}"
    resolved, power = ("efficiency", "on battery") if on_battery else ("performance", "on mains power")
    return resolved, f"policy {resolved} (auto, {power})"


def matches(wanted: str, device: Device) -> bool:
    """Return whether a value of ``--device`` selects this device.

    ``gpu`` selects any GPU, ``dgpu`` only discrete ones; ``openvino:GPU`` selects every ``openvino:GPU.n``.
    """
    word, full = wanted.casefold(), str(device).casefold()
    if word in {"auto", device.backend.casefold(), device.kind, full}:
        return True
    return (word == "gpu" and device.kind == "dgpu") or full.startswith(f"{word}.")


def choose(survey: Survey, request: DeviceRequest) -> tuple[Candidate, ...]:
    """Rank the offers that match a request, best first.

    Raises:
        NoDeviceError: no offer matches; the message has the request and the refusals of the backends.
    """
    policy, words = effective_policy(request.policy, on_battery=survey.machine.on_battery)
    exact = [offer for offer in survey.offers if str(offer.device).casefold() == request.device.casefold()]
    named = exact or [offer for offer in survey.offers if offer.automatic and matches(request.device, offer.device)]
    fitting = [offer for offer in named if request.precision in (None, *offer.precisions)]
    if not fitting:
        raise _nothing(survey, request, named)
    order = _ORDER[policy]
    fitting.sort(
        key=lambda offer: (
            order.index(offer.device.kind),
            MATURITIES.index(offer.maturity),
            -(offer.device.memory_bytes or 0),
            str(offer.device),
        )
    )
    candidates = []
    for place, offer in enumerate(fitting, start=1):
        why = _why(place, fitting, request, words, order)
        precisions = (request.precision,) if request.precision else offer.precisions
        candidates.append(
            Candidate(
                device=offer.device, precisions=precisions, rank=place, why=why, notes=offer.notes, layout=offer.layout
            )
        )
    return tuple(candidates)


def overview(survey: Survey, policy: str) -> tuple[Candidate, ...]:
    """Return all offered devices: the ranked ones, then those that are used only when named."""
    named = tuple(
        Candidate(
            device=offer.device,
            precisions=offer.precisions,
            rank=None,
            why="used only when named",
            notes=offer.notes,
            layout=offer.layout,
        )
        for offer in survey.offers
        if not offer.automatic
    )
    try:
        return (*choose(survey, DeviceRequest(policy=policy)), *named)
    except NoDeviceError:
        return named


def _why(place: int, all_: list[Offer], request: DeviceRequest, policy: str, order: tuple[str, ...]) -> str:
    offer = all_[place - 1]
    reasons = []
    if request.device != "auto":
        reasons.append(f"asked for as {request.device}")
    if len(all_) == 1:
        reasons.append("the only device that fits" if request.device == "auto" else "the only one")
    else:
        reasons.append(f"{policy} takes {', then '.join(_present(order, all_))}")
        if place > 1:
            reasons.append(_after(all_[place - 2], offer))
    if offer.maturity != "stable":
        reasons.append(offer.maturity)
    return "; ".join(reasons)


def _present(order: tuple[str, ...], offers: list[Offer]) -> list[str]:
    kinds = {offer.device.kind for offer in offers}
    return [kind for kind in order if kind in kinds]


def _after(better: Offer, offer: Offer) -> str:
    """Return why ``better`` ranks before ``offer``: the first part of the sort key that differs."""
    ours, theirs = offer.device, better.device
    if ours.kind != theirs.kind:
        return f"{ours.kind} comes after {theirs.kind}"
    if offer.maturity != better.maturity:
        return f"{offer.maturity} comes after {better.maturity}"
    if (ours.memory_bytes or 0) != (theirs.memory_bytes or 0):
        return f"less memory than {theirs}"
    return f"after {theirs} by name"


def _nothing(survey: Survey, request: DeviceRequest, named: list[Offer]) -> NoDeviceError:
    if named:
        runs = "; ".join(f"{offer.device} runs {', '.join(offer.precisions)}" for offer in named)
        return NoDeviceError(f"no device that fits runs {request.precision}: {runs}", hint="leave --precision out")
    if not survey.answers and not survey.broken:
        return NoDeviceError("no backend is installed", hint="pip install phi3-openvino")
    word = request.device.casefold()
    wanted = word.partition(":")[0]
    told = [
        f"{answer.backend.name}: {', '.join(refusal.reason for refusal in answer.refusals)}"
        for answer in survey.answers
        if answer.refusals and (request.device == "auto" or wanted in KINDS or wanted == answer.backend.name.casefold())
    ]
    told += [f"{broken.plugin} is broken: {broken.error}" for broken in survey.broken]
    hidden = [str(offer.device) for offer in survey.offers if not offer.automatic]
    what = "no usable device" if request.device == "auto" else f"no device fits {request.device!r}"
    message = f"{what}; {'; '.join(told)}" if told else what
    if hidden and request.device == "auto":
        return NoDeviceError(message, hint=f"there is {hidden[0]}, used only when named: --device {hidden[0]}")
    return NoDeviceError(message, hint="phi3 devices")
