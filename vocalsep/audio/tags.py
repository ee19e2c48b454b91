"""Tags: title, artist and so on, which the stems take over from the recording.

They are a courtesy: a tag is never a reason to refuse a file.
"""

from __future__ import annotations

from collections.abc import Mapping

KEYS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright", "license")
"""Names of the tags that are read and written; they are libsndfile's."""

_MAX_BYTES = 2000  # of each tag, in UTF-8; libsndfile reads no tags at all from a wav file that has a longer one


def cleaned(found: Mapping[str, object]) -> dict[str, str]:
    r"""Return the tags that can be written: known names, text without zero bytes and of bounded length.

    Examples
    --------
    >>> cleaned({"TITLE": " Locus iste\0", "artist": "", "mood": "calm"})
    {'title': 'Locus iste'}
    """
    by_name = {name.lower(): value for name, value in found.items()}
    kept = {}
    for name in KEYS:
        value = by_name.get(name)
        if isinstance(value, str):
            text = value.split("\0")[0].encode(errors="replace")[:_MAX_BYTES].decode(errors="ignore").strip()
            if text:
                kept[name] = text
    return kept


def from_ffmpeg(*found: Mapping[str, str]) -> dict[str, str]:
    """Return cleaned tags from FFmpeg's, which have some other names; earlier mappings take precedence."""
    names = {"track": "tracknumber", "year": "date", "creation_time": "date"}
    renamed = {}
    for tags in reversed(found):
        for name, text in sorted(tags.items(), key=lambda item: item[0].lower() in KEYS):
            renamed[names.get(name.lower(), name.lower())] = text
    return cleaned(renamed)


def to_ffmpeg(tags: Mapping[str, str]) -> dict[str, str]:
    """Return cleaned tags under FFmpeg's names."""
    return {"track" if name == "tracknumber" else name: text for name, text in cleaned(tags).items()}
