"""Checkpoints by name, from a folder or from the Hub, and networks with their weights.

`model` is a name in the manifest, a checkpoint folder, or a repository on the Hub, "owner/repo" or
"owner/repo@revision". A checkpoint that is unknown, cannot be downloaded, is damaged, or is made for another version of
vocalsep raises `WeightsError`.

A checkpoint of the manifest is used only if its SHA-256 is right. A repository that is not in the manifest is loaded
unverified; name a commit as its revision to get the same content each time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import vocalsep
from vocalsep.errors import WeightsError, one_line, shown
from vocalsep.weights import hub
from vocalsep.weights.checkpoint import CONFIG, TENSORS, Checkpoint, file_sha256, read_checkpoint, read_config
from vocalsep.weights.manifest import Entry, manifest

if TYPE_CHECKING:
    import torch

_BUNDLED = Path(__file__).parent.parent / "checkpoints"
_REPOSITORY = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")

Network = TypeVar("Network", bound="torch.nn.Module", covariant=True)


class NetworkType(Protocol[Network]):
    """Class of a network: a module that is made from a frozen dataclass, its configuration."""

    @property
    def kind(self) -> str:
        """Name of this kind of network in config.json."""

    @property
    def Config(self) -> Callable[..., Any]:  # noqa: N802
        """The configuration; it raises ValueError if it is not valid."""

    def __call__(self, config: Any, /) -> Network:
        """Return a network."""


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint."""
    entry = _entry(model)
    return read_checkpoint(_locate(model, hub.download), None if entry is None else entry.sha256)


def load_network(model: str | os.PathLike[str], network_type: NetworkType[Network], device: Any = "cpu") -> Network:
    """Load a network for inference, in evaluation mode and without gradients.

    A checkpoint of another kind of network, or with tensors that do not fit, raises `WeightsError` too.
    """
    config, tensors = load_checkpoint(model)
    kind = config.pop("network")
    if kind != network_type.kind:
        raise WeightsError(f"{model}: is a checkpoint of kind {shown(kind)}; expected {network_type.kind!r}")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    try:
        network = network_type(network_type.Config(**settings))
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        # TypeError: unknown settings. ValueError: values out of range. RuntimeError: names or shapes of tensors.
        raise WeightsError(f"{model}: does not fit the {kind} network: {one_line(str(error), 300)}") from error
    return network.eval().requires_grad_(False).to(device)


def checkpoint_sha256(model: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of model.safetensors, which for a name in the manifest is the only one that is accepted."""
    entry = _entry(model)
    return file_sha256(_locate(model, hub.download)) if entry is None else entry.sha256


def checkpoint_config(model: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of config.json."""
    return read_config(_locate(model, hub.download))


def find(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a checkpoint on this machine; nothing is downloaded."""
    return _locate(model, hub.cached)


def _locate(model: str | os.PathLike[str], on_hub: Callable[[str, str | None], Path]) -> Path:
    """Return the folder of a checkpoint; `on_hub` returns that of a repository and a revision."""
    entry = _entry(model)
    if entry is not None:
        if not entry.loads_in(vocalsep.__version__):
            raise WeightsError(f"weights {entry.name!r} are for vocalsep {entry.vocalsep}, not {vocalsep.__version__}")
        if entry.bundled:
            return _BUNDLED / entry.name
        assert entry.repository is not None  # checked by Entry
        return on_hub(entry.repository, entry.revision)
    path = Path(model)
    if path.is_dir() and str(model):  # Path("") is the current folder
        return path
    if path.is_file():
        raise WeightsError(
            f"{path}: is a file; expected a checkpoint folder with {CONFIG} and {TENSORS} "
            "(version 0.1 kept the configuration in the metadata of a single file)"
        )
    repository = _REPOSITORY.fullmatch(model) if isinstance(model, str) else None
    if repository is not None:
        try:
            return on_hub(repository[1], repository[2])
        except WeightsError as error:
            raise WeightsError(f"there is no folder {model} on this machine; on the Hub: {error}") from error
    raise WeightsError(
        f"no weights {shown(str(model))}; expected one of {', '.join(manifest())}, a checkpoint folder, or "
        "owner/repo[@revision] on the Hub"
    )


def _entry(model: str | os.PathLike[str]) -> Entry | None:
    return manifest().get(model) if isinstance(model, str) else None
