"""The files of a checkpoint folder: README.md, config.json and model.safetensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vocalsep.errors import WeightsError, one_line, reason
from vocalsep.files import write_file

if TYPE_CHECKING:
    from torch import Tensor, nn

CARD = "README.md"
CONFIG = "config.json"
TENSORS = "model.safetensors"


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: dict[str, Any]
    """Kind of network, under "network", and the fields of its configuration."""
    tensors: dict[str, Tensor]
    """Parameters and buffers by name, on the CPU."""


def read_checkpoint(folder: Path, sha256: str | None = None) -> Checkpoint:
    """Read the checkpoint in a folder.

    A file that is missing or damaged, or another `sha256` of model.safetensors, raises `WeightsError`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    config = read_config(folder)
    path = folder / TENSORS
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise WeightsError(f"{path} has SHA-256 {found}, expected {sha256}; delete {folder} and get it again")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: is not a safetensors file ({one_line(str(error))})") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: tensor {name} holds values that are not finite")
    return Checkpoint(config, tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json."""
    path = folder / CONFIG
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is not JSON ({one_line(str(error))})") from error
    if not isinstance(config, dict) or not isinstance(config.get("network"), str):
        raise WeightsError(f'{path}: names no network; expected a table with "network" and its configuration')
    return config


def file_sha256(folder: Path) -> str:
    """Return the SHA-256 of model.safetensors in hexadecimal digits."""
    return hashlib.sha256(_read(folder / TENSORS)).hexdigest()


def save_checkpoint(folder: str | os.PathLike[str], network: nn.Module, card: str | None = None) -> None:
    """Write a network, with the attributes `kind` and `config`, as a checkpoint folder; its files are replaced.

    `card` is the content of README.md, which is not written without it. Each file is written completely or not at all,
    the weights last.
    """
    from safetensors.torch import save

    config = {"network": network.kind, **dataclasses.asdict(network.config)}  # type: ignore[call-overload]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files = {} if card is None else {CARD: card.encode()}
    files[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
    files[TENSORS] = save(tensors, metadata={"format": "pt"})
    for name, content in files.items():
        # Not save_file of safetensors: only the owner may read its files, and checkpoints go into packages.
        write_file(Path(folder) / name, content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({reason(error)}); expected a checkpoint folder with {CONFIG} and {TENSORS}"
        ) from error
