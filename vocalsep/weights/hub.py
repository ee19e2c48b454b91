"""Download of checkpoints from the Hub, by huggingface_hub and into its cache.

HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and a token stored by `hf auth login` work as everywhere in
huggingface_hub. It is imported only when a checkpoint on the Hub is needed.
"""

from __future__ import annotations

from pathlib import Path

from vocalsep.errors import WeightsError, one_line
from vocalsep.weights.checkpoint import CARD, CONFIG, TENSORS


def download(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint in the cache; download the files that are missing.

    `repository` is "owner/repo", `revision` a branch, tag or commit; None stands for the main branch.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    address = _address(repository, revision)
    for file in (CONFIG, CARD, TENSORS):
        try:
            path = Path(hf_hub_download(repository, file, revision=revision))
        except Exception as error:  # which exceptions there are depends on the version of the HTTP library beneath
            if file == CARD and isinstance(error, EntryNotFoundError):
                continue
            raise WeightsError(f"{address}: {file} cannot be downloaded: {_explanation(error)}") from error
        folder = path.parent
        revision = folder.name  # the commit, so that all files belong together even if a branch moves meanwhile
    return folder


def cached(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint in the cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, TENSORS, revision=revision)
    if not isinstance(path, str):
        raise WeightsError(f"{_address(repository, revision)}: is not in the cache of huggingface_hub")
    return Path(path).parent


def _address(repository: str, revision: str | None) -> str:
    return repository if revision is None else f"{repository}@{revision}"


def _explanation(error: Exception) -> str:
    """Return why a download failed, and what a user can do."""
    from huggingface_hub import constants, errors

    # When a file is not in the cache, the actual reason is the cause.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "it is not in the cache, and HF_HUB_OFFLINE is set"
    if isinstance(cause, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(cause, errors.EntryNotFoundError) and status == 404:
        return "the repository has no such file; expected a checkpoint of vocalsep"
    if isinstance(cause, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"{constants.ENDPOINT} has no such repository, or it is private: set HF_TOKEN or run `hf auth login`"
    return f"{type(cause).__name__}: {one_line(str(cause), 200)}; check the network and HF_ENDPOINT, or try again later"
