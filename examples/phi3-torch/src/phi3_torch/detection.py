"""Detection of the devices that PyTorch supports: CPUs, and GPUs with CUDA."""

from __future__ import annotations

from phi3_core.backend import missing_requirement
from phi3_core.values import Device, Machine, Offer, Refusal

REQUIREMENTS = {"torch": "torch>=2.6", "transformers": "transformers>=5.5,<5.6"}


def detect(machine: Machine) -> list[Offer | Refusal]:
    """Return offers for this machine's devices. Takes about two seconds, for importing PyTorch."""
    for module, requirement in REQUIREMENTS.items():
        if (refusal := missing_requirement(requirement, module=module)) is not None:
            return [refusal]
    import torch

    answers: list[Offer | Refusal] = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        kind = "gpu" if found.is_integrated else "dgpu"
        answers.append(_offer(f"CUDA.{index}", kind, found.name, found.total_memory, torch.version.cuda))
    if not answers:
        remedy = "" if torch.version.cuda else "install a build of PyTorch with CUDA: https://pytorch.org"
        answers.append(Refusal(reason="PyTorch finds no GPU with CUDA", remedy=remedy))
    return [*answers, _offer("CPU", "cpu", f"{machine.architecture} (PyTorch)", machine.memory_bytes)]


def _offer(name: str, kind: str, title: str, memory_bytes: int, driver: str | None = None) -> Offer:
    device = Device(backend="torch", id=name, kind=kind, name=title, memory_bytes=memory_bytes, driver=driver)
    return Offer(device=device, precisions=("fp16",), maturity="experimental")
