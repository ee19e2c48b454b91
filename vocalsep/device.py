"""Where to compute: the CPU, CUDA or MPS."""

from __future__ import annotations

import torch

from vocalsep.errors import OptionError, shown


def resolve_device(device: str) -> str:
    """Return "cpu", "cuda" or "mps" for what a user asks for; "auto" takes CUDA where there is one, else the CPU.

    Raises
    ------
    OptionError
        If the device is unknown or not on this machine.
    """
    device = str(device)
    told = shown(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    kind = device.split(":")[0]
    if kind not in available:
        raise OptionError(f"device is {told}; expected auto, {', '.join(available)}")
    if not available[kind]:
        raise OptionError(f"device is {told}, which this machine or this build of PyTorch does not have")
    try:
        torch.empty(0, device=device)
    except RuntimeError as error:  # "cpu:x", or "cuda:7" where there are fewer
        raise OptionError(f"device is {told}; expected auto, {', '.join(available)}") from error
    return device
