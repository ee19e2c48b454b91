"""The benchmark of rooms: ensembles are put into measured rooms, and separated with and without the model of the room.

The stems in the room are to be separated. If the separator corrects masks, this is measured too. F0 is that of the dry
stems, or tracked in the mixture. The room that the separator estimates is compared with the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vocalsep.audio import ArrayRecording, Float32
from vocalsep.audio.downmix import Downmix
from vocalsep.errors import OptionError
from vocalsep.evaluation.baselines.ideal import separate_ideal
from vocalsep.evaluation.ensemble import Ensemble
from vocalsep.evaluation.metrics import Values
from vocalsep.evaluation.separation import FROM_MIXTURE, FROM_STEMS, SI_SDR, VoiceScores, format_table, score, title
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.room import RoomParameters
from vocalsep.options import RoomLike
from vocalsep.separation.folders import audio_files
from vocalsep.separation.separator import Separator
from vocalsep.timebase import MODEL_SAMPLE_RATE
from vocalsep.training.rooms import in_room, measured_rooms, room_of

_CELL = 26  # characters


class InRoom(NamedTuple):
    """What has been measured on an ensemble in a room."""

    true: RoomParameters
    estimated: dict[str, RoomParameters]  # by the source of the f0 tracks
    scores: list[VoiceScores]


def load_rooms(folder: Path, names: Sequence[str] = ()) -> dict[str, Float32]:
    """Return the impulse responses in a folder, all or those named, shape (samples,)."""
    responses = dict(zip(audio_files(folder), (places[0] for places in measured_rooms(folder)), strict=True))
    unknown = [name for name in names if name not in responses]
    if unknown:
        message = f"{folder}: holds no response named {unknown[0]!r}; expected some of {', '.join(responses)}"
        raise OptionError(message, parameter="chosen")
    return {name: responses[name] for name in names or responses}


def put_in_room(ensemble: Ensemble, name: str, response: Float32) -> Ensemble:
    """Return an ensemble in a room, each voice as one."""
    stems = in_room(torch.from_numpy(ensemble.stems), torch.from_numpy(response)).numpy()
    return replace(ensemble, singers=list(stems[:, None]), room=name)


def evaluate_in_rooms(
    ensembles: Sequence[Ensemble],
    rooms: Mapping[str, Float32],
    truth: F0Tracks,
    separator: Separator,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[InRoom]:
    """Yield what is measured on each ensemble, dry and in each room.

    The truth is the f0 of the dry stems of all voices. `report` receives a line before each separation.
    """
    for ensemble in ensembles:
        tracks = truth.select(ensemble.names)
        yield InRoom(RoomParameters.of(), *_evaluate(ensemble, tracks, separator, report))
        for name, response in rooms.items():
            wet = put_in_room(ensemble, name, response)
            yield InRoom(room_of(response), *_evaluate(wet, tracks, separator, report))


def _evaluate(
    ensemble: Ensemble, tracks: F0Tracks, separator: Separator, report: Callable[[str], None]
) -> tuple[dict[str, RoomParameters], list[VoiceScores]]:
    """Return the estimated room, by the source of the f0 tracks, and the scores of an ensemble."""
    mixture = ensemble.mixture
    recording, downmix = ArrayRecording(mixture[None], MODEL_SAMPLE_RATE), Downmix.of_array(mixture)
    estimated: dict[str, RoomParameters] = {}
    scores: list[VoiceScores] = []
    plain = separator.without_correction()
    systems: dict[str, tuple[Separator, RoomLike]] = {"no room model": (plain, "none"), "room model": (plain, "auto")}
    if separator.correction is not None:
        systems["corrected masks"] = (separator, "auto")
    for source, f0s in ((FROM_STEMS, tracks), (FROM_MIXTURE, None)):
        report(f"{ensemble.label}, {ensemble.room}: analysis, f0 {source}")
        rooms: tuple[RoomLike, ...] = ("none", "auto")
        analyses = {room: separator.analyse(downmix, f0s, ensemble.names, room=room) for room in rooms}
        estimated[source] = analyses["auto"].room
        for name, (system, room) in systems.items():
            report(f"{ensemble.label}, {ensemble.room}: {name}, f0 {source}")
            stems = np.concatenate(list(system.stems(recording, analyses[room])), axis=-1)[:, 0]
            scores += score(ensemble, name, source, stems)
    return estimated, [*scores, *score(ensemble, "ideal", "", separate_ideal(mixture, ensemble.stems))]


def format_scores(results: Sequence[InRoom]) -> Iterator[str]:
    """Yield the lines of a table of SI-SDR, mean / median over all voices of ensembles of one size, in each room."""
    scores = [score for result in results for score in result.scores]
    rooms = dict.fromkeys(score.room for score in scores)
    yield title(scores)
    yield from format_table(scores, {room: partial(_si_sdr, room=room) for room in rooms})


def _si_sdr(scores: Sequence[VoiceScores], room: str) -> Values:
    return np.concatenate([np.zeros(0), *(score.scores[SI_SDR] for score in scores if score.room == room)])


def format_rooms(results: Sequence[InRoom]) -> Iterator[str]:
    """Yield the lines of a table of rooms, true and estimated, by room and number of voices; means over ensembles."""
    yield "\nRooms: T60 in s and direct-to-reverberant ratio in dB, true and estimated with each f0"
    groups: dict[tuple[str, int], list[InRoom]] = {}
    for result in results:
        first = result.scores[0]
        groups.setdefault((first.room, len(first.ensemble)), []).append(result)
    width = 2 + max(len(name) for name, _ in groups)
    yield f"{'room':<{width}}voices" + "".join(f"{name:>{_CELL}}" for name in ("true", FROM_STEMS, FROM_MIXTURE))
    for (name, voices), group in groups.items():
        columns = [[result.true for result in group]]
        columns += [[result.estimated[source] for result in group] for source in (FROM_STEMS, FROM_MIXTURE)]
        yield f"{name:<{width}}{voices:>6}" + "".join(f"{_mean_room(rooms):>{_CELL}}" for rooms in columns)


def _mean_room(rooms: Sequence[RoomParameters]) -> str:
    """Return the mean of rooms in words; if some of several are none, say how many there are."""
    found = [(float(room.reverberation_time), float(room.ratio)) for room in rooms if not room.is_dry]
    if not found:
        return "none"
    time, ratio = np.mean(found, axis=0)
    return f"{time:.2f} s {ratio:+.1f} dB" + ("" if len(found) == len(rooms) else f" ({len(found)} of {len(rooms)})")
