"""Where to compute: the CPU, CUDA or MPS."""

from __future__ import annotations

import torch

from vocalsep.errors import ParameterError


def resolve_device(device: str) -> str:
    """Return "cpu", "cuda" or "mps" for what a user asks for; "auto" takes CUDA where there is one, else the CPU.

    Raises
    ------
    ParameterError
        If the device is unknown or not on this machine.
    """
    device = str(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    kind = device.split(":")[0]
    if kind not in available:
        raise ParameterError(f"device is {device!r}; expected auto, {', '.join(available)}")
    if not available[kind]:
        raise ParameterError(f"device is {device!r}, which this machine or this build of PyTorch does not have")
    return device
