"""Devices to compute on: the CPU, CUDA or MPS."""

from __future__ import annotations

import torch

from vocalsep.errors import OptionError, shown


def resolve_device(device: str) -> str:
    """Return the name of a PyTorch device; "auto" becomes "cuda" if there is a GPU, else "cpu".

    Raises
    ------
    OptionError
        If the device is unknown or not available.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = str(device).partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    try:
        if available[kind]:
            torch.empty(0, device=device)  # "cuda:7" on a machine with fewer GPUs fails here
            return str(device)
    except (KeyError, RuntimeError):
        pass
    usable = ", ".join(name for name, present in available.items() if present)
    raise OptionError(f"device is {shown(device)}; expected auto or, on this machine, {usable}", parameter="device")
