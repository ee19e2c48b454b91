"""One download from the Hub by huggingface_hub, in a process of its own that `hub` starts, watches and ends.

huggingface_hub waits as long as a server tells it to (`Retry-After`), and goes on for ever with one that breaks every
transfer off in the middle. Only a process can be ended for certain, and its locks with it. This module imports nothing
of vocalsep, so that it starts quickly; it reads a request in JSON on stdin and answers in JSON on stdout.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

WAITS = (1.0, 3.0)
"""Seconds after which a server that is busy, or cannot be connected to, is asked again, unless it says how long."""
LONGEST_WAIT = 20.0
"""Seconds that are waited if the server says so; where it says more, that is told instead."""

_BUSY = (408, 429, 500, 502, 503, 504)
_WORD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_SLACK = 1 << 20  # bytes that a process may write to a file beyond what it is to fetch: notes, logs
_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}  # in which huggingface_hub speaks


def fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Download a file into huggingface_hub's cache.

    Parameters
    ----------
    request
        repository, revision, file; cache: folder; endpoint: address of the Hub; size: bytes that are expected, or
        None; limit: bytes that it may have; again: whether to download it although it is there; waits: see `WAITS`.

    Returns
    -------
    dict
        path of the file, or error with its kind: "offline", "network", "timeout", "status" (with status and wait),
        "size" (with size), "disk" (with reason) or "other"; and detail.
    """
    try:
        return {"path": _patiently(request)}
    except _SizeError as error:
        return {"error": "size", "size": error.size, "detail": ""}
    except Exception as error:
        return described(error)


class _SizeError(Exception):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def _patiently(request: dict[str, Any]) -> str:
    """Download, again where a later attempt may be luckier."""
    waits = request["waits"]
    for attempt in range(len(waits) + 1):
        try:
            return _once(request)
        except _SizeError:
            raise
        except Exception as error:
            failure = described(error)
            busy = failure["error"] == "network" or failure.get("status") in _BUSY
            if not busy or attempt == len(waits) or (failure.get("wait") or 0) > LONGEST_WAIT:
                raise
            time.sleep(failure.get("wait") or waits[attempt])
    raise AssertionError("the last attempt returns or raises")


def _once(request: dict[str, Any]) -> str:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    patience = constants.HF_HUB_ETAG_TIMEOUT  # seconds without a byte, 10 by default
    repository, file, revision = request["repository"], request["file"], request["revision"]
    endpoint = request["endpoint"]
    # Asked first, because hf_hub_download tries for minutes where there is no answer, and never minds the size.
    address = hf_hub_url(repository, file, revision=revision, endpoint=endpoint)
    metadata = get_hf_file_metadata(address, timeout=patience)
    size = metadata.size
    if size is not None and (size > request["limit"] or request["size"] not in (None, size)):
        raise _SizeError(size)
    for word in (metadata.etag, metadata.commit_hash):
        # They become names of files and folders in the cache.
        if word is not None and not _WORD.fullmatch(word):
            raise ValueError(f"the server calls the content {word[:80]!r}, which is no name that a Hub gives")
    if size is not None and metadata.etag is not None:
        _remove_overgrown(Path(request["cache"]), repository, metadata.etag, size)
    path: str = hf_hub_download(
        repository,
        file,
        revision=revision,
        cache_dir=request["cache"],
        endpoint=endpoint,
        force_download=request["again"],
        etag_timeout=patience,
    )
    return path


def _remove_overgrown(cache: Path, repository: str, etag: str, size: int) -> None:
    """Remove what an earlier transfer left that is larger than the file: some versions would try to go on behind it."""
    from huggingface_hub.file_download import repo_folder_name

    part = cache / repo_folder_name(repo_id=repository, repo_type="model") / "blobs" / f"{etag}.incomplete"
    with contextlib.suppress(OSError):
        if part.stat().st_size > size:
            part.unlink()


def described(error: Exception) -> dict[str, Any]:
    """Return what went wrong, looking behind errors that only say that something did."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for link in chain:
        response = getattr(link, "response", None)
        if response is not None and getattr(response, "status_code", 200) >= 400:
            wait = str(response.headers.get("Retry-After", ""))
            server = str(response.headers.get("X-Error-Message") or "")[:200]
            return {
                "error": "status",
                "status": int(response.status_code),
                "wait": float(wait) if wait.isdigit() and len(wait) < 10 else None,
                "detail": server,
            }
        library = type(link).__module__.split(".")[0]
        if type(link).__name__ == "OfflineModeIsEnabled":
            return {"error": "offline", "detail": ""}
        if library in _LIBRARIES:
            kind = "timeout" if "Timeout" in type(link).__name__ else "network"
            return {"error": kind, "detail": " ".join(str(link).split())[:200] or type(link).__name__}
        if isinstance(link, OSError) and link.errno == errno.EFBIG:
            return {"error": "other", "detail": "the server sends more than the size of the file"}
        if isinstance(link, OSError) and link.errno is not None and link.strerror:
            return {"error": "disk", "reason": link.strerror, "detail": str(link.filename or "")}
    return {"error": "other", "detail": detail}


def _limit_files(size: int) -> None:
    """Let no file of this process grow beyond a size: huggingface_hub writes whatever a server sends, to the end."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def main() -> None:
    """Answer one request."""
    for name in ("SIGTERM", "SIGINT"):
        # An exit, and no signal's death, lets huggingface_hub remove what it had begun to write.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(1))
    request = json.loads(sys.stdin.buffer.read())
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    _limit_files((request["size"] or request["limit"]) + _SLACK)
    with contextlib.redirect_stdout(sys.stderr):  # nothing else may write where the answer goes
        answer = fetch(request)
    json.dump(answer, sys.stdout)
