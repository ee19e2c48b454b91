"""What users may write where weights are asked for: a name, a file, or a file on the Hub.

`default` is a name in the manifest; `my_choir.safetensors` a file here; `owner/repo@revision:file.safetensors` a file
on the Hub. Behind each of them `#sha256=` and 64 hexadecimal digits tell which content is trusted, and no other is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vocalsep.errors import WeightsError, shown
from vocalsep.weights.register import HubFile, hub_file, is_sha256

SUFFIX = ".safetensors"
_MARK = "#sha256="


class ModelName(NamedTuple):
    """What a user wrote, understood; at most one of `path` and `hub` is given."""

    text: str
    """Without the SHA-256; a name in the manifest where neither of the others is given."""
    path: Path | None
    """A file on this machine."""
    hub: HubFile | None
    """A file on the Hub."""
    sha256: str | None
    """The content that is trusted."""


def parse_model(model: str | os.PathLike[str]) -> ModelName:
    """Return what a user wrote for weights, understood; nothing is looked up.

    Raises
    ------
    WeightsError
        If it names a file of another kind, or a SHA-256 or a place on the Hub that is none.
    """
    text, mark, digest = as_text(model).rpartition(_MARK)
    if not mark:
        text, digest = digest, ""
    trusted = digest.lower() if mark else None
    if trusted is not None and not is_sha256(trusted):
        raise WeightsError(f"SHA-256 of {text} is {digest!r}; expected 64 hexadecimal digits")
    repository, at, rest = text.partition("@")
    # A file of such a name on this machine is meant before any on the Hub.
    if at and "/" in repository and ":" in rest and not os.path.lexists(text):
        revision, _, file = rest.partition(":")
        try:
            return ModelName(text, None, hub_file(repository, revision, file), trusted)
        except ValueError as error:
            raise WeightsError(
                f"{text!r} is no file on the Hub: {error} (the form is owner/repo@revision:file.safetensors)"
            ) from error
    if text.endswith(SUFFIX):
        return ModelName(text, Path(text), None, trusted)
    return ModelName(text, None, None, trusted)


def as_text(model: str | os.PathLike[str]) -> str:
    """Return what a user wrote for weights as a text.

    Raises
    ------
    WeightsError
        If it is neither text nor path.
    """
    text = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(text, str):
        raise WeightsError(f"weights are {shown(model)}; expected a name, or the path of a {SUFFIX} file")
    return text


def with_sha256(model: str, digest: str | None) -> str:
    """Return what a user wrote for weights together with the SHA-256 that is trusted, if one is.

    Raises
    ------
    WeightsError
        If it is no SHA-256, or another one is already given.
    """
    if digest is None:
        return model
    given = parse_model(f"{model}{_MARK}{digest}" if _MARK not in model else model).sha256
    if given != digest.lower():
        raise WeightsError(f"SHA-256 {digest} is to be trusted, but {model} says {given}")
    return model if _MARK in model else f"{model}{_MARK}{digest}"
