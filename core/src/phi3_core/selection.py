"""Rank the offered devices, with the reason for each rank. Pure functions of survey, request and figures."""

from __future__ import annotations

from attrs import field, frozen, validators

from .errors import NoDeviceError
from .figures.values import Failure, Figures, Known
from .ranking import KINDS_BY_POLICY, Contender, ranked, reasons
from .surveys import Survey
from .values import KINDS, PRECISIONS, Device, Offer

POLICIES = ("auto", "performance", "efficiency")
NOTHING = Known()
"""No figures, and no failures."""


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
    figures: Figures | None = None
    """What was measured of the model on the device, counted or not."""
    failure: Failure | None = None
    """Set if the device failed and is put last."""


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


def choose(survey: Survey, request: DeviceRequest, known: Known = NOTHING) -> tuple[Candidate, ...]:
    """Rank the offers that match a request, best first.

    Args:
        survey: the offers.
        request: what the user asked for.
        known: the figures of the model on these devices, and the devices that failed.

    Raises:
        NoDeviceError: no offer matches; the message has the request and the refusals of the backends.
    """
    policy, words = effective_policy(request.policy, on_battery=survey.machine.on_battery)
    exact = [offer for offer in survey.offers if str(offer.device).casefold() == request.device.casefold()]
    named = exact or [offer for offer in survey.offers if offer.automatic and matches(request.device, offer.device)]
    fitting = [offer for offer in named if request.precision in (None, *offer.precisions)]
    if not fitting:
        raise _nothing(survey, request, named)
    order = ranked([_contender(offer, request, policy, known) for offer in fitting])
    return tuple(
        _candidate(each, request, rank=place, why=_why(place, order, request, words))
        for place, each in enumerate(order, start=1)
    )


def overview(survey: Survey, policy: str, known: Known = NOTHING) -> tuple[Candidate, ...]:
    """Return all offered devices: the ranked ones, then those that are used only when named."""
    request = DeviceRequest(policy=policy)
    effective, _ = effective_policy(policy, on_battery=survey.machine.on_battery)
    hidden = [_contender(offer, request, effective, known) for offer in survey.offers if not offer.automatic]
    named = tuple(
        _candidate(each, request, rank=None, why="; ".join(["used only when named", *reasons(1, [each])]))
        for each in hidden
    )
    try:
        return (*choose(survey, request, known), *named)
    except NoDeviceError:
        return named


def _contender(offer: Offer, request: DeviceRequest, policy: str, known: Known) -> Contender:
    device = str(offer.device)
    figures, failure = known.of(device, _precisions(offer, request)), known.failures.get(device)
    return Contender(offer=offer, policy=policy, figures=figures, failure=failure, now=known.now)


def _precisions(offer: Offer, request: DeviceRequest) -> tuple[str, ...]:
    return (request.precision,) if request.precision else offer.precisions


def _candidate(each: Contender, request: DeviceRequest, *, rank: int | None, why: str) -> Candidate:
    offer = each.offer
    return Candidate(
        device=offer.device,
        precisions=_precisions(offer, request),
        rank=rank,
        why=why,
        notes=offer.notes,
        layout=offer.layout,
        figures=each.figures,
        failure=each.failure,
    )


def _why(place: int, order: list[Contender], request: DeviceRequest, policy: str) -> str:
    first = []
    if request.device != "auto":
        first.append(f"asked for as {request.device}")
    if len(order) == 1:
        first.append("the only device that fits" if request.device == "auto" else "the only one")
    else:
        measured = "measured times first, then " if order[0].policy == "performance" else "measured energy first, then "
        kinds = ", then ".join(_present(order))
        first.append(f"{policy} takes {measured if any(each.cost is not None for each in order) else ''}{kinds}")
    maturity = order[place - 1].offer.maturity
    return "; ".join([*first, *reasons(place, order), *([maturity] if maturity != "stable" else [])])


def _present(order: list[Contender]) -> list[str]:
    kinds = {each.offer.device.kind for each in order}
    return [kind for kind in KINDS_BY_POLICY[order[0].policy] if kind in kinds]


def _nothing(survey: Survey, request: DeviceRequest, named: list[Offer]) -> NoDeviceError:
    broken = [f"{broken.plugin} is broken: {broken.error}" for broken in survey.broken]
    if named:
        runs = [f"{offer.device} runs {', '.join(offer.precisions)}" for offer in named]
        message = f"no device that fits runs {request.precision}: {'; '.join([*runs, *broken])}"
        return NoDeviceError(message, hint="leave --precision out")
    if not survey.answers and not survey.broken:
        return NoDeviceError("no backend is installed", hint="pip install phi3-openvino")
    word = request.device.casefold()
    wanted = word.partition(":")[0]
    told = [
        f"{answer.backend.name}: {', '.join(refusal.reason for refusal in answer.refusals)}"
        for answer in survey.answers
        if answer.refusals and (request.device == "auto" or wanted in KINDS or wanted == answer.backend.name.casefold())
    ]
    told += broken
    hidden = [str(offer.device) for offer in survey.offers if not offer.automatic]
    what = "no usable device" if request.device == "auto" else f"no device fits {request.device!r}"
    message = f"{what}; {'; '.join(told)}" if told else what
    if hidden and request.device == "auto":
        return NoDeviceError(message, hint=f"there is {hidden[0]}, used only when named: --device {hidden[0]}")
    return NoDeviceError(message, hint="phi3 devices")
