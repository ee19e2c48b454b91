"""Publishing of checkpoints on the Hub, for maintainers: the card, the upload, and what to write into the manifest.

What is uploaded is the very content that was verified, in one commit with its card; the answer of the Hub is compared
with it before anything is called published.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from vocalsep.errors import WeightsError
from vocalsep.weights.reading import parse
from vocalsep.weights.register import Entry, HubFile, hub_file
from vocalsep.weights.store import entry_named, obtain_entry

LICENCES = {
    "MIT": "mit",
    "Apache 2.0": "apache-2.0",
    "CC0 1.0": "cc0-1.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
}
"""Names of licences in the manifest, and on the Hub."""

_TAGS = {"estimator": ["source-separation"], "f0": ["pitch-estimation", "f0"]}
_CARDS = Path(__file__).parent.parent / "checkpoints"


class UploadFile(NamedTuple):
    """A file to be uploaded."""

    name: str
    """In the repository."""
    content: bytes
    """The whole of it."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


class Upload(NamedTuple):
    """What is to be published."""

    entry: Entry
    repository: str
    """Owner and name."""
    card: str
    """README.md of the repository."""
    files: tuple[UploadFile, ...]
    """The card, then the checkpoint."""


def prepare(name: str, repository: str) -> Upload:
    """Return what would be published, checked; nothing is transferred.

    Parameters
    ----------
    name
        Of the manifest.
    repository
        Owner and name on the Hub.

    Raises
    ------
    WeightsError
        If the manifest does not know it, or gives no licence that the Hub knows, or no credits; if the card is
        missing; if the file is not the registered one, or no checkpoint; or if the repository is none.
    """
    entry = entry_named(name)
    try:
        hub_file(repository, "main", entry.file)
    except ValueError as error:
        raise WeightsError(f"{name!r} cannot be published: {error}") from error
    if entry.licence not in LICENCES:
        raise WeightsError(
            f"{name!r} cannot be published: its licence is {entry.licence!r}; expected one of {', '.join(LICENCES)}"
        )
    if not entry.credit.strip():
        raise WeightsError(f"{name!r} cannot be published: the manifest credits nobody; expected who and which data")
    found = obtain_entry(entry)
    parse(found.content, found.path)
    card = model_card(entry, repository)
    return Upload(
        entry, repository, card, (UploadFile("README.md", card.encode()), UploadFile(entry.file, found.content))
    )


def model_card(entry: Entry, repository: str) -> str:
    """Return the card of a repository on the Hub: what the Hub reads in front, then what people read.

    Raises
    ------
    WeightsError
        If the manifest names a description that is missing.
    """
    front = {
        "license": LICENCES.get(entry.licence, "other"),
        "library_name": "vocalsep",
        "tags": ["vocalsep", "audio", "music", "singing", "choir", *_TAGS[entry.purpose]],
    }
    # JSON is YAML, too.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [_description(entry), "", "## Use", ""]
    option = "-n" if entry.purpose == "estimator" else "--tracker"
    if not entry.name.startswith("crepe-"):
        lines += ["```", f"vocalsep separate choir.wav {option} {entry.name}", "```", ""]
    else:
        lines += ["```", f"vocalsep separate choir.wav --guides rehearsal/ --crepe {entry.name[6:]}", "```", ""]
    fetch = f"`vocalsep models download {entry.name}` fetches the file from {repository} and verifies it."
    lines += ["The file comes with the package." if entry.bundled else fetch, ""]
    lines += ["## File", "", "| | |", "|---|---|"]
    rows = {
        "file": f"`{entry.file}` (safetensors, its configuration in the metadata)",
        "size": f"{entry.size} bytes",
        "SHA-256": f"`{entry.sha256}`",
        "versions of vocalsep": entry.vocalsep,
        "licence": entry.licence,
        "credits": entry.credit,
        "made with": f"`{entry.source}`",
    }
    lines += [f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items()]
    if entry.scores:
        lines += ["", "## Scores", "", *(f"- {key}: {_said(value)}" for key, value in entry.scores.items())]
    return "\n".join(lines) + "\n"


def publish(upload: Upload, *, private: bool = False, endpoint: str | None = None) -> HubFile:
    """Upload a checkpoint and its card in one commit, and return where it then is, pinned.

    Parameters
    ----------
    upload
        What `prepare` returns.
    private
        Whether the repository, if it is new, is a private one.
    endpoint
        Address of the Hub; HF_ENDPOINT if it is not given.

    Raises
    ------
    WeightsError
        If there is no token, the Hub refuses, or it then has another file than the one sent.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url

    from vocalsep.weights import hub, transfer

    if get_token() is None:
        raise WeightsError("publishing needs a token that may write: set HF_TOKEN or run `hf auth login`")
    endpoint = endpoint or constants.ENDPOINT
    repository, weights = upload.repository, upload.files[-1]
    try:
        api = HfApi(endpoint=endpoint, library_name="vocalsep")
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [CommitOperationAdd(file.name, file.content) for file in upload.files]
        commit = api.create_commit(repository, operations, commit_message=f"{upload.entry.name}, {weights.sha256[:12]}")
        published = hub_file(repository, commit.oid, weights.name)
        there = get_hf_file_metadata(hf_hub_url(repository, weights.name, revision=commit.oid, endpoint=endpoint))
    except Exception as error:  # whatever is raised by the libraries in which huggingface_hub speaks
        why = hub.reason(transfer.described(error), repository, None, endpoint)
        raise WeightsError(f"{repository}: cannot be published: {why}") from error
    # The name of a large file's content on the Hub is its SHA-256.
    if there.size != weights.size or (len(there.etag or "") == 64 and there.etag != weights.sha256):
        raise WeightsError(
            f"{published}: the Hub has {there.size} bytes, {there.etag}, expected {weights.size}, {weights.sha256}; "
            "do not pin this commit"
        )
    return published


def _description(entry: Entry) -> str:
    if entry.card is None:
        return f"# {entry.name}: weights of vocalsep\n\n{entry.credit}."
    path = _CARDS / Path(entry.card).name
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{entry.name!r} cannot be published: its card {path} cannot be read ({error})") from error


def _said(value: Any) -> str:
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)
