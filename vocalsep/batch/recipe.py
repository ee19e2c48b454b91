"""What decides on stems besides the recording itself: version, weights, settings, and the f0 that is given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from vocalsep import __version__, weights
from vocalsep.f0.tracks import F0Tracks
from vocalsep.separation.asked import refinements
from vocalsep.separation.files import Settings
from vocalsep.voices import parse_voices


class Weights(NamedTuple):
    """Weights that are used, and the sum of their file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """All that decides on stems, but the recording and the device.

    Parameters
    ----------
    version
        Of vocalsep.
    model
        Weights of the estimator.
    tracker, crepe
        Weights that track f0, None where it is given; weights that refine it, None where it is not refined.
    settings
        Those of `Settings`, as JSON; voices by name and range.
    f0
        SHA-256 of the f0 that is given, or None.
    """

    version: str
    model: Weights
    tracker: Weights | None
    crepe: Weights | None
    settings: Mapping[str, Any]
    f0: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as what JSON can hold."""
        weights_used = {name: None if used is None else used._asdict() for name, used in self._weights().items()}
        return {"vocalsep": self.version, **weights_used, "settings": dict(self.settings), "f0": self.f0}

    def _weights(self) -> dict[str, Weights | None]:
        return {"model": self.model, "tracker": self.tracker, "crepe": self.crepe}

    def difference(self, recorded: Mapping[str, Any]) -> str:
        """Return the first thing that differs from what stems were made with, in words; "" if they would be the same.

        Patch versions of vocalsep do not differ in what they write, and weights are what their sum is, by any name.
        """
        now, then = _flat(self.to_json()), _flat(recorded)
        for name in [*now, *then]:
            if now.get(name) != then.get(name):
                sums = any(map(_is_sum, (now.get(name), then.get(name))))
                return f"another {name}" if sums else f"{name} {then.get(name)}, not {now.get(name)}"
        return ""


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what counts in a recipe; one that was damaged gives what no other gives."""
    try:
        sums = {name: recipe[name] and recipe[name]["sha256"] for name in ("model", "tracker", "crepe")}
        minor = ".".join(str(recipe["vocalsep"]).split(".")[:2])
        return {"vocalsep": minor, **recipe["settings"], **sums, "f0": recipe["f0"]}
    except (KeyError, TypeError):
        return {"record": "damaged"}


def _is_sum(value: Any) -> bool:
    return isinstance(value, str) and len(value) == hashlib.sha256().digest_size * 2


def recipe_of(model: str, tracker: str, settings: Settings, f0s: F0Tracks | None = None) -> Recipe:
    """Return the recipe of a separation.

    Parameters
    ----------
    model, tracker, f0s
        See `vocalsep.separate`.

    Raises
    ------
    WeightsError
        If weights are not there.
    VoicesError
        If the voices cannot be understood.
    """
    given = f0s is not None
    refined = refinements(settings.refine, given)
    return Recipe(
        version=__version__,
        model=weights_of(model),
        tracker=None if given else weights_of(tracker),
        crepe=weights_of("crepe-tiny") if refined else None,
        settings=_settings_json(settings, given),
        f0=_sum_of(f0s),
    )


def weights_of(name: str) -> Weights:
    """Return the name of weights and the sum of their file.

    Raises
    ------
    WeightsError
        If they cannot be had.
    """
    return Weights(name, weights.fingerprint(name))


def _settings_json(settings: Settings, given: bool) -> dict[str, Any]:
    values = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(settings).items()
    }
    values["refine"] = refinements(settings.refine, given)
    if settings.voices is not None or not given:
        voices = parse_voices("SATB" if settings.voices is None else settings.voices)
        values["voices"] = [f"{voice.name}={voice.fmin:g}-{voice.fmax:g}" for voice in voices]
    return values


def _sum_of(f0s: F0Tracks | None) -> str | None:
    if f0s is None:
        return None
    digest = hashlib.sha256(repr((f0s.names, f0s.hop, f0s.frequencies.shape)).encode())
    digest.update(np.ascontiguousarray(f0s.frequencies, dtype=np.float32).tobytes())
    return digest.hexdigest()
