"""Checkpoints: the manifest, where their files lie, and loading them verified.

`weights_manifest.json` is the one register. Checkpoints are safetensors files whose metadata holds the network's
configuration as JSON under "config". A file of the manifest is used only if its SHA-256 is the one registered.
Downloads from the Hub are not there yet: entries that are not bundled say how their file is made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vocalsep.errors import WeightsError
from vocalsep.files import replace_file

if TYPE_CHECKING:
    import torch

Network = TypeVar("Network", bound="torch.nn.Module")

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one checkpoint.

    Parameters
    ----------
    name
        Name under which users ask for it.
    purpose
        "f0" or "estimator".
    file
        File name, in `vocalsep/checkpoints` if `bundled`, else in the user's folder (see `user_folder`).
    size
        Bytes.
    sha256
        Of the file, in hexadecimal digits.
    licence
        Licence of the weights.
    bundled
        Whether the file is part of the wheel.
    hub
        Repository on the Hub, or None while it is not published.
    source
        Where the weights come from: the command that trains or converts them.
    details
        Everything else: data, seed, training time, scores, credits.
    """

    name: str
    purpose: str
    file: str
    size: int
    sha256: str
    licence: str
    bundled: bool
    hub: str | None
    source: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    config: dict[str, Any]
    """The network's configuration."""
    tensors: dict[str, torch.Tensor]
    """Parameters and buffers by name, on the CPU."""


@cache
def manifest() -> Mapping[str, Entry]:
    """Return the register of checkpoints by name.

    Raises
    ------
    WeightsError
        If the manifest is missing or damaged, which means that the installation is.
    """
    # In the wheel it lies in the package, in a checkout (editable install) at the root.
    places = (_PACKAGE / "weights_manifest.json", _PACKAGE.parent / "weights_manifest.json")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise WeightsError(f"{places[0]} is missing; expected the register of weights: install vocalsep again")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["checkpoints"]
        own = set(Entry.__dataclass_fields__) - {"details"}
        entries = [
            Entry(**{key: row[key] for key in own}, details={k: v for k, v in row.items() if k not in own})
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}): install vocalsep again") from error
    return {entry.name: entry for entry in entries}


def user_folder() -> Path:
    """Return the folder for checkpoints that are not bundled: $VOCALSEP_HOME or ~/.cache/vocalsep."""
    given = os.environ.get("VOCALSEP_HOME")
    return Path(given) if given else Path.home() / ".cache" / "vocalsep"


def find(name: str) -> Path:
    """Return the path of a checkpoint of the manifest; its content is not looked at.

    Raises
    ------
    WeightsError
        If there is no such name, or its file is not on this machine.
    """
    entries = manifest()
    if name not in entries:
        raise WeightsError(f"no weights named {name!r}; expected one of {', '.join(entries)}, or a .safetensors file")
    entry = entries[name]
    path = (_PACKAGE / "checkpoints" if entry.bundled else user_folder()) / entry.file
    if not path.is_file():
        how = "install vocalsep again" if entry.bundled else f"make it with: {entry.source}"
        raise WeightsError(f"weights {name!r} are not on this machine ({path} is missing); {how}")
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint by its name in the manifest, verified, or from a .safetensors file.

    Raises
    ------
    WeightsError
        If the checkpoint is unknown, missing, corrupt or holds values that are not finite.
    """
    text = str(name_or_path)
    if not text.endswith(".safetensors"):
        path = find(text)
        expected = manifest()[text].sha256
        try:
            actual = sha256(path)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror}); expected weights {text!r}") from error
        if actual != expected:
            raise WeightsError(
                f"weights {text!r} are corrupt: {path} has SHA-256 {actual[:12]}..., expected {expected[:12]}...; "
                "remove the file and install or make it again"
            )
        return _read(path)
    path = Path(text)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a .safetensors checkpoint")
    return _read(path)


def _read(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key).float() for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}); expected a checkpoint") from error
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata hold no configuration; expected JSON under 'config'") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: its configuration is {type(config).__name__}; expected a table of settings")
    broken = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds values that are NaN or infinite; expected finite weights")
    return Checkpoint(config, tensors)


def read_network(model: str, build: Callable[[dict[str, Any]], Network], what: str) -> Network:
    """Return a network with the weights of a checkpoint, to train further.

    Parameters
    ----------
    model
        See `load`.
    build
        From the configuration in a checkpoint to the network that it describes.
    what
        The network, for messages.

    Raises
    ------
    WeightsError
        If the weights are unknown, missing, corrupt, or not those of such a network.
    """
    checkpoint = load(model)
    network = build(checkpoint.config)
    try:
        network.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise WeightsError(f"weights {model!r} do not fit the {what} ({error})") from error
    return network


def load_network(model: str, device: str, build: Callable[[dict[str, Any]], Network], what: str) -> Network:
    """Return a network ready for inference on a device; see `read_network`.

    A file that was loaded before and has not changed since is not read again.
    """
    path = Path(model)
    version = path.stat().st_mtime_ns if model.endswith(".safetensors") and path.is_file() else 0
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
