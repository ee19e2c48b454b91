"""Checkpoints: loading them into networks, and writing them.

Checkpoints are safetensors files whose metadata holds the network's configuration as JSON under "config". `names`
says what may be written where weights are asked for, `register` which there are by name, `store` where their bytes come
from, `reading` how a file is read. A network takes all tensors of a file by name and shape, or none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vocalsep.errors import WeightsError
from vocalsep.files import replace_file
from vocalsep.weights.names import parse_model
from vocalsep.weights.reading import parse, read_json
from vocalsep.weights.store import Found, entry_named, obtain

if TYPE_CHECKING:
    import torch

Network = TypeVar("Network", bound="torch.nn.Module")


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: dict[str, Any]
    """The network's configuration."""
    tensors: dict[str, torch.Tensor]
    """Parameters and buffers by name, on the CPU."""


def load(model: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint by its name in the manifest, from a .safetensors file, or from the Hub.

    Parameters
    ----------
    model
        A name; a path; or "owner/repo@revision:file.safetensors"; behind any of them "#sha256=" and the SHA-256 of
        the content that is trusted.

    Raises
    ------
    WeightsError
        If the checkpoint is unknown, missing, corrupt, not for this version, or holds values that are not finite.

    Warns
    -----
    UnverifiedWeightsWarning
        If it comes from the Hub and no SHA-256 is given, or from a revision that is not a commit.
    """
    return _checkpoint(obtain(parse_model(model)))


def fingerprint(model: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the only file that `load` accepts, or else of the one that it reads now, for reports.

    Raises
    ------
    WeightsError
        If there is no such name, or a file whose content nobody registered cannot be read.
    """
    name = parse_model(model)
    if name.path is None and name.hub is None:
        return entry_named(name.text).sha256
    return name.sha256 or hashlib.sha256(obtain(name).content).hexdigest()


def _checkpoint(found: Found) -> Checkpoint:
    metadata, tensors = parse(found.content, found.path)
    try:
        config = read_json(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{found.path}: its metadata hold no configuration; expected JSON under 'config'") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{found.path}: its configuration is {type(config).__name__}; expected a table of settings")
    return Checkpoint(config, {name: tensor.float() for name, tensor in tensors.items()})


def read_network(model: str, build: Callable[[dict[str, Any]], Network], what: str) -> Network:
    """Return a network with the weights of a checkpoint, to train further.

    Parameters
    ----------
    model
        See `load`.
    build
        From the configuration in a checkpoint, which it checks, to the network that it describes.
    what
        The network, for messages.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of such a network.
    """
    import torch

    checkpoint = load(model)
    # A network without memory first: a configuration cannot ask for more than the file holds.
    try:
        with torch.device("meta"):
            expected = build(checkpoint.config).state_dict()
    except WeightsError as error:
        raise WeightsError(f"weights {model!r} are not those of the {what}: {error}") from error
    misfit = _misfit(checkpoint.tensors, expected)
    if misfit:
        raise WeightsError(f"weights {model!r} do not fit the {what} ({misfit})")
    network = build(checkpoint.config)
    try:
        network.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise WeightsError(f"weights {model!r} do not fit the {what} ({error})") from error
    return network


def _misfit(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Return in words where names and shapes differ, None if they do not."""
    if missing := [name for name in expected if name not in tensors]:
        return f"they have no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
    if unknown := [name for name in tensors if name not in expected]:
        return f"they have {unknown[0]}, which it has not" + (f", and {len(unknown) - 1} more" if unknown[1:] else "")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
    return None


def load_network(model: str, device: str, build: Callable[[dict[str, Any]], Network], what: str) -> Network:
    """Return a network ready for inference on a device; see `read_network`.

    A file that was loaded before and has not changed since is not read again.
    """
    path = parse_model(model).path
    version = path.stat().st_mtime_ns if path is not None and path.is_file() else 0
    network: Network = _load_network(model, device, build, what, version)
    return network


@lru_cache(maxsize=8)
def _load_network(model: str, device: str, build: Callable[[dict[str, Any]], Any], what: str, version: int) -> Any:
    return read_network(model, build, what).eval().requires_grad_(False).to(device)


def save(path: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint, completely or not at all.

    Raises
    ------
    WeightsError
        If the file cannot be written.
    """
    from safetensors.torch import save

    target = Path(path)
    contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    content = save(contiguous, metadata={"config": json.dumps(dict(config), sort_keys=True)})
    try:
        # Not safetensors' save_file, whose files only their owner may read: checkpoints go into wheels.
        replace_file(target, content)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written ({error.strerror})") from error
