"""Where checkpoints lie, and how their bytes are had: nothing leaves this module whose SHA-256 is not the expected one.

What is hashed is what is handed on: a file is read once, so that nobody can change it between the check and its use.
Bundled files come out of the package. Others are looked for in the user's folder, then made from an installed package
that holds them, then in huggingface_hub's cache, then downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import vocalsep
from vocalsep.errors import WeightsError, shown
from vocalsep.weights.names import ModelName
from vocalsep.weights.reading import read_bytes
from vocalsep.weights.register import Entry, HubFile, manifest

_PACKAGE = Path(__file__).parent.parent


class UnverifiedWeightsWarning(UserWarning):
    """Weights are used of which nobody said what they should be, or from an address whose content can change."""


class Found(NamedTuple):
    """The bytes of a checkpoint."""

    path: Path
    """Where they were read."""
    content: bytes
    """The whole file."""


def user_folder() -> Path:
    """Return the folder for checkpoints that are made here: $VOCALSEP_HOME or ~/.cache/vocalsep."""
    given = os.environ.get("VOCALSEP_HOME")
    return Path(given) if given else Path.home() / ".cache" / "vocalsep"


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def entry_named(name: str) -> Entry:
    """Return the manifest's entry of a name.

    Raises
    ------
    WeightsError
        If there is none.
    """
    entries = manifest()
    if name not in entries:
        raise WeightsError(
            f"no weights named {shown(name)}; expected one of {', '.join(entries)}, a .safetensors file, or "
            "owner/repo@revision:file.safetensors on the Hub"
        )
    return entries[name]


def obtain(model: ModelName) -> Found:
    """Return the bytes of a checkpoint, verified as far as it is known what they should be.

    Raises
    ------
    WeightsError
        If they cannot be had, or are not the expected ones.

    Warns
    -----
    UnverifiedWeightsWarning
        If they come from the Hub and no SHA-256 is given, or from a revision that is not a commit.
    """
    if model.path is not None:
        found = Found(model.path, read_bytes(model.path, "a .safetensors checkpoint"))
        if model.sha256 not in (None, _digest(found)):
            raise WeightsError(f"{model.path}: has SHA-256 {_digest(found)}, expected {model.sha256}")
        return found
    if model.hub is not None:
        found = _from_hub(model.hub, None, model.sha256)
        _warn(model.hub, model.sha256, found)
        return found
    entry = entry_named(model.text)
    if model.sha256 not in (None, entry.sha256):
        raise WeightsError(f"weights {model.text!r} have SHA-256 {entry.sha256}; {model.sha256} was asked for")
    return obtain_entry(entry)


def obtain_entry(entry: Entry) -> Found:
    """Return the verified bytes of a checkpoint of the manifest, which is made or downloaded if need be.

    Raises
    ------
    WeightsError
        If it is not for this version, cannot be had, or is corrupt and could not be replaced.
    """
    if not entry.loads_in(vocalsep.__version__):
        raise WeightsError(
            f"weights {entry.name!r} are for vocalsep {entry.vocalsep}; this is {vocalsep.__version__}: "
            "install such a version, or take other weights"
        )
    if entry.bundled:
        return _bundled(entry)
    own = user_folder() / entry.file
    note = ""
    if own.is_file():
        found = _read(own)
        if found is not None and _right(found, entry.size, entry.sha256):
            return found
        _remove(own)
        note = f"; {own} was corrupt and is removed"
    try:
        made = _converted(entry, own)
    except WeightsError:
        if entry.hub is None:
            raise
        made = None
    if made is not None:
        return made
    if entry.hub is not None:
        return _from_hub(entry.hub, entry.size, entry.sha256)
    raise WeightsError(
        f"weights {entry.name!r} are not on this machine{note}; they are {entry.publication} on the Hub; "
        f"{how_to_make(entry)}"
    )


def how_to_make(entry: Entry) -> str:
    """Return what a user can do to have a checkpoint that is not bundled and not on the Hub."""
    package = (
        ""
        if entry.found_in is None
        else f"install {entry.found_in.package} (pip install --no-deps "
        f"{entry.found_in.package}=={entry.found_in.version}), which holds them, or "
    )
    return f"{package}make them with: {entry.source}"


def local_path(entry: Entry) -> Path | None:
    """Return where a checkpoint of the manifest lies on this machine, None if it does not; it is not looked into."""
    own = (_PACKAGE / "checkpoints" if entry.bundled else user_folder()) / entry.file
    if own.is_file():
        return own
    if entry.bundled or entry.hub is None:
        return None
    from vocalsep.weights import hub

    return hub.cached(entry.hub)


def find(name: str) -> Path:
    """Return where a checkpoint of the manifest lies on this machine; it is not looked into.

    Raises
    ------
    WeightsError
        If there is no such name, or its file is not on this machine.
    """
    entry = entry_named(name)
    path = local_path(entry)
    if path is None:
        how = "install vocalsep again" if entry.bundled else f"`vocalsep models download {name}` says how to have them"
        raise WeightsError(f"weights {name!r} are not on this machine; {how}")
    return path


def problem(entry: Entry, path: Path) -> str | None:
    """Return in words what is wrong with a file of the manifest, None if it is right; nothing is changed."""
    try:
        found = Found(path, read_bytes(path))
    except WeightsError as error:
        return str(error)
    if len(found.content) != entry.size:
        return f"{path} has {len(found.content)} bytes, expected {entry.size}"
    if _digest(found) != entry.sha256:
        return f"{path} has SHA-256 {_digest(found)[:12]}..., expected {entry.sha256[:12]}..."
    return None


def _digest(found: Found) -> str:
    return hashlib.sha256(found.content).hexdigest()


def _right(found: Found, size: int | None, digest: str | None) -> bool:
    return size in (None, len(found.content)) and digest in (None, _digest(found))


def _bundled(entry: Entry) -> Found:
    path = _PACKAGE / "checkpoints" / entry.file
    if not path.is_file():
        raise WeightsError(f"weights {entry.name!r} are missing ({path}); install vocalsep again")
    found = Found(path, read_bytes(path))
    if not _right(found, entry.size, entry.sha256):
        raise WeightsError(
            f"weights {entry.name!r} are corrupt: {path} has SHA-256 {_digest(found)[:12]}..., expected "
            f"{entry.sha256[:12]}...; install vocalsep again"
        )
    return found


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{path}: is corrupt and cannot be removed ({error.strerror}); remove it by hand") from error


def _converted(entry: Entry, target: Path) -> Found | None:
    """Return a checkpoint made from an installed package, written for the next time; None if there is none."""
    if entry.found_in is None:
        return None
    from vocalsep import weights
    from vocalsep.f0 import crepe_weights

    made = crepe_weights.convert_installed(entry.name.removeprefix("crepe-"))
    if made is None:
        return None
    # Written under a name of its own: two processes may do this at once, and give the same bytes.
    aside = target.with_name(f"{target.stem}.{os.getpid()}.part.safetensors")
    try:
        weights.save(aside, made[0].to_json(), made[1])
        found = Found(target, read_bytes(aside))
        if not _right(found, entry.size, entry.sha256):
            raise WeightsError(
                f"weights {entry.name!r}, converted from {entry.found_in.package}, have SHA-256 "
                f"{_digest(found)[:12]}..., expected {entry.sha256[:12]}...; {how_to_make(entry)}"
            )
        aside.replace(target)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return found


def _from_hub(file: HubFile, size: int | None, digest: str | None) -> Found:
    """Return a file on the Hub; a wrong one is removed from the cache and fetched once more."""
    from vocalsep.weights import hub

    # What a branch stands for is asked each time; a commit never changes.
    path = hub.cached(file) if file.pinned else None
    found: Found | None = None
    for attempt in range(2):
        try:
            path = path or hub.download(file, size=size, again=attempt > 0)
        except WeightsError as error:
            if attempt > 0:
                raise WeightsError(f"{error}; what was there was corrupt and is removed") from error
            path = hub.cached(file) if isinstance(error, hub.HubUnreachableError) else None
            if path is None:
                raise
        found = _read(path)
        if found is not None and _right(found, size, digest):
            return found
        hub.remove(path)
        path = None
    was = (
        f"{len(found.content)} bytes with SHA-256 {_digest(found)}" if found is not None else "nothing that can be read"
    )
    raise WeightsError(
        f"{file}: the Hub gave twice {was}, expected SHA-256 {digest}; nothing of it is kept: "
        "the file there was exchanged, or the transfer is tampered with"
    )


def _read(path: Path) -> Found | None:
    """Return the bytes of a file in the cache, None if another process removed it meanwhile or it cannot be read."""
    try:
        return Found(path, read_bytes(path))
    except WeightsError:
        return None


def _warn(file: HubFile, digest: str | None, found: Found) -> None:
    notes = []
    if digest is None:
        notes.append(
            f"is used unverified: nobody said what its SHA-256 should be; it is {_digest(found)}, and --trust-sha256 "
            "with that (in Python: #sha256= and that behind the name) accepts nothing else from now on"
        )
    if not file.pinned:
        notes.append(f"is from {file.revision!r}, which can be moved to other content: name a commit instead")
    if notes:
        warnings.warn(f"{file} {'; it '.join(notes)}", UnverifiedWeightsWarning, stacklevel=2)
