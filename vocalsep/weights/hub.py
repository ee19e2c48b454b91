"""Transfer of checkpoints from the Hub, by huggingface_hub and into its cache.

HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, and a token that `hf auth login` stored, count as they do
for huggingface_hub, which is not even imported where nothing of the Hub is asked for. A download ends after 60 s and
another 10 s for every megabyte at the latest (and 5 s to tidy up), whatever the server does; the environment variable
VOCALSEP_DOWNLOAD_TIMEOUT gives another number of seconds. A server that says nothing is given up after 10 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocalsep.errors import WeightsError
from vocalsep.weights import transfer
from vocalsep.weights.reading import MAX_FILE
from vocalsep.weights.register import HubFile

_BASE_SECONDS = 60.0
_SECONDS_PER_BYTE = 10e-6  # 100 kB/s: the slowest line that is waited for
_UNKNOWN_SIZE = 100_000_000  # bytes that are waited for where the size is not known
_GRACE = 5.0  # seconds that a download has to tidy up when it is ended
_DONE = "vocalsep models download"

# Isolated, the process does not look for modules in the folder that the user happens to be in.
_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from vocalsep.weights.transfer import main; main()"


class HubUnreachableError(WeightsError):
    """The Hub gave no answer at all."""


def cached(file: HubFile) -> Path | None:
    """Return where huggingface_hub's cache has a file, None if it does not; nothing is transferred."""
    constants = _constants()
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(
            file.repository, file.file, cache_dir=constants.HF_HUB_CACHE, revision=file.revision
        )
    except OSError:  # a cache that cannot be read has nothing
        return None
    return Path(found) if isinstance(found, str) else None


def download(file: HubFile, *, size: int | None = None, again: bool = False) -> Path:
    """Download a file into huggingface_hub's cache, unless it is there; its content is not looked at.

    Parameters
    ----------
    file
        Which.
    size
        Bytes that it must have, if that is known.
    again
        Whether to download it although the cache has it.

    Returns
    -------
    Path
        In the cache.

    Raises
    ------
    WeightsError
        If it cannot be had; the message says why, and what can be done.
    """
    constants = _constants()
    endpoint = constants.ENDPOINT
    request = {
        **file._asdict(),
        "cache": str(constants.HF_HUB_CACHE),
        "endpoint": endpoint,
        "size": size,
        "limit": MAX_FILE,
        "again": again,
        "waits": list(transfer.WAITS),
    }
    seconds = time_limit(size)
    # Where Python is part of another program there is nothing to start a process with.
    alone = not sys.executable or getattr(sys, "frozen", False)
    answer = transfer.fetch(request) if alone else _in_process(request, seconds)
    if answer is None:
        raise WeightsError(
            f"{file}: the download from {endpoint} was not done after {seconds:g} s; try again, or set "
            "VOCALSEP_DOWNLOAD_TIMEOUT to more seconds"
        )
    if "path" in answer:
        return Path(answer["path"])
    why = reason(answer, file.repository, size, endpoint)
    unreachable = answer["error"] in ("offline", "network", "timeout")
    raise (HubUnreachableError if unreachable else WeightsError)(f"{file}: cannot be downloaded: {why}")


def time_limit(size: int | None) -> float:
    """Return the seconds that a download may take.

    Raises
    ------
    WeightsError
        If VOCALSEP_DOWNLOAD_TIMEOUT is no number of seconds.
    """
    given = os.environ.get("VOCALSEP_DOWNLOAD_TIMEOUT")
    if not given:
        return _BASE_SECONDS + _SECONDS_PER_BYTE * (_UNKNOWN_SIZE if size is None else size)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 1e6:
        raise WeightsError(f"VOCALSEP_DOWNLOAD_TIMEOUT is {given!r}; expected a number of seconds above 0")
    return seconds


def remove(path: Path) -> None:
    """Remove a file from huggingface_hub's cache: its entry, and the content that the entry links to.

    Raises
    ------
    WeightsError
        If it cannot be removed.
    """
    # snapshots/<revision>/<file> links to ../../blobs/<etag>, which may link on to content that repositories share.
    cache = Path(_constants().HF_HUB_CACHE).resolve()
    here: Path | None = path
    try:
        while here is not None and cache in here.parent.resolve().parents:
            following = here.parent / here.readlink() if here.is_symlink() else None
            here.unlink(missing_ok=True)
            here = following
    except OSError as error:
        raise WeightsError(f"{path}: is corrupt and cannot be removed ({error.strerror}); remove it by hand") from error


def _constants() -> Any:
    """Return the settings of huggingface_hub, which reads the environment when it is imported."""
    try:
        from huggingface_hub import constants
    except (ImportError, ValueError) as error:
        raise WeightsError(
            f"huggingface_hub cannot be used ({error}); check the environment variables HF_... and install it again"
        ) from error
    return constants


def _in_process(request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """Return the answer of a process to a request, None if it gave none in time."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, *map(str, sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        output, _ = process.communicate(json.dumps(request).encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        return {"error": "other", "detail": f"the download ended with code {process.returncode}"}
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that may be running: first so that it can tidy up, then for certain."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def reason(answer: Mapping[str, Any], repository: str, size: int | None, endpoint: str) -> str:
    """Return in words why a transfer failed, and what can be done.

    Parameters
    ----------
    answer
        What `transfer.fetch` or `transfer.described` returns.
    repository
        Owner and name.
    size
        Bytes that were expected, if that is known.
    endpoint
        Address of the Hub.
    """
    kind, detail = answer["error"], answer["detail"]
    said = f" ({detail})" if detail else ""
    if kind == "offline":
        return f"HF_HUB_OFFLINE is set; unset it, or run `{_DONE}` where there is a network"
    if kind == "network":
        return f"the connection to {endpoint} failed{said}; check the network and HF_ENDPOINT, or try again later"
    if kind == "timeout":
        return f"{endpoint} does not answer{said}; check the network and HF_ENDPOINT, or try again later"
    if kind == "size":
        return f"it has {answer['size']} bytes, expected {size if size is not None else f'{MAX_FILE} at most'}"
    if kind == "disk":
        return (
            f"the cache {detail or 'of huggingface_hub'} cannot be written ({answer['reason']}); expected room and "
            "the right to write there, or HF_HOME to name another folder"
        )
    if kind == "status":
        return _of_status(answer["status"], answer.get("wait"), said, repository, endpoint)
    return f"{detail}; try again"


def _of_status(status: int, wait: float | None, said: str, repository: str, endpoint: str) -> str:
    if status in (401, 403):
        return (
            f"{endpoint} answers {status}{said}: {repository} does not exist, or needs a token; "
            "set HF_TOKEN or run `hf auth login`"
        )
    if status == 404:
        return f"{endpoint} answers 404{said}: there is no such repository, revision or file"
    if status == 429:
        return f"{endpoint} answers 429, too many requests{said}; try again {f'in {wait:g} s' if wait else 'later'}"
    return f"{endpoint} answers {status}{said}; try again later"
