"""Notes of MIDI files as f0, and f0 as notes: timing, names, damaged files, vibrato, glides, tuning."""

from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocalsep.errors import F0Error, OutputError
from vocalsep.f0.tracks import F0Tracks
from vocalsep.timebase import HOP

BEAT = 480


def on(note, time=0, channel=0, velocity=80):
    return mido.Message("note_on", note=note, time=time, channel=channel, velocity=velocity)


def off(note, time=0, channel=0):
    return mido.Message("note_off", note=note, time=time, channel=channel)


def tempo(seconds_per_beat, time=0):
    return mido.MetaMessage("set_tempo", tempo=round(seconds_per_beat * 1e6), time=time)


def named(name):
    return mido.MetaMessage("track_name", name=name)


def midi(folder: Path, *tracks, kind: int = 1, ticks_per_beat: int = BEAT) -> Path:
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks_per_beat)
    file.tracks.extend(mido.MidiTrack(track) for track in tracks)
    file.save(folder / "song.mid")
    return folder / "song.mid"


def sung(tracks: F0Tracks, voice: int = 0) -> list[tuple[int, float, float]]:
    """Return what a voice sings as (MIDI note, start in s, end in s)."""
    f0 = tracks.frequencies[voice]
    notes = np.where(f0 > 0, np.round(69 + 12 * np.log2(np.maximum(f0, 1) / 440)), 0).astype(int)
    edges = [0, *np.flatnonzero(np.diff(notes)) + 1, len(notes)]
    return [(int(notes[a]), a * HOP, b * HOP) for a, b in pairwise(edges) if notes[a]]


def assert_sung(found, expected):
    assert [note for note, *_ in found] == [note for note, *_ in expected]
    np.testing.assert_allclose([span for _, *span in found], [span for _, *span in expected], atol=HOP)


def test_midi_notes_and_rests(tmp_path):
    tracks = F0Tracks.from_midi(midi(tmp_path, [on(69, BEAT), off(69, BEAT), on(57, BEAT), off(57, BEAT)]))
    assert_sung(sung(tracks), [(69, 0.5, 1), (57, 1.5, 2)])
    assert set(tracks.frequencies[0].tolist()) == {0, 440, 220}
    assert (tracks.names, tracks.hop) == (("voice1",), HOP)


def test_midi_tempo_changes_hold_for_all_tracks(tmp_path):
    path = midi(tmp_path, [tempo(1), tempo(0.25, 2 * BEAT)], [on(60, BEAT), off(60, 3 * BEAT)], [on(50), off(50, BEAT)])
    tracks = F0Tracks.from_midi(path)
    assert_sung(sung(tracks, 0), [(60, 1, 2.5)])
    assert_sung(sung(tracks, 1), [(50, 0, 1)])


def test_midi_legato_is_cut_and_velocity_0_ends(tmp_path):
    legato = [on(60), on(62, BEAT), off(60, 48), on(62, BEAT, velocity=0), on(64, BEAT), off(64, BEAT)]
    assert_sung(sung(F0Tracks.from_midi(midi(tmp_path, legato))), [(60, 0, 0.5), (62, 0.5, 1.05), (64, 1.55, 2.05)])


def test_midi_long_note_does_not_come_back_after_a_short_one(tmp_path):
    path = midi(tmp_path, [on(60), on(67, BEAT), off(67, BEAT), off(60, 2 * BEAT)])
    assert_sung(sung(F0Tracks.from_midi(path)), [(60, 0, 0.5), (67, 0.5, 1)])


def test_midi_chord_gives_its_highest_note(tmp_path):
    chord = [on(64), on(72), on(60), off(72, BEAT), off(60, BEAT), off(64)]
    assert_sung(sung(F0Tracks.from_midi(midi(tmp_path, chord))), [(72, 0, 0.5)])


def test_midi_note_never_released_lasts_to_the_end(tmp_path):
    path = midi(tmp_path, [on(60), mido.MetaMessage("end_of_track", time=4 * BEAT)])
    assert_sung(sung(F0Tracks.from_midi(path)), [(60, 0, 2)])


def test_midi_names(tmp_path):
    note = [on(60), off(60, BEAT)]
    tracks = [[named("Conductor")], [named(" Alto "), *note], [named("a/b"), *note], [named("alto"), *note], note]
    path = midi(tmp_path, *tracks)
    assert F0Tracks.from_midi(path).names == ("Alto1", "a_b", "alto2", "voice4")
    assert F0Tracks.from_midi(path, list("wxyz")).names == ("w", "x", "y", "z")
    with pytest.raises(F0Error, match="4 voices"):
        F0Tracks.from_midi(path, ["s", "a"])


def test_midi_names_in_utf_8(tmp_path):
    path = midi(tmp_path, [named("Ténor".encode().decode("latin-1")), on(60), off(60, BEAT)])
    assert F0Tracks.from_midi(path).names == ("Ténor",)


def test_midi_tracks_go_by_their_names(tmp_path):
    path = midi(tmp_path, [named("Bass"), on(48), off(48, BEAT)], [named("Soprano"), on(72), off(72, BEAT)])
    tracks = F0Tracks.from_midi(path, ["soprano", "bass"])
    assert tracks.names == ("soprano", "bass")
    assert [sung(tracks, voice)[0][0] for voice in (0, 1)] == [72, 48]


def test_midi_channels_of_a_single_track_are_voices(tmp_path):
    track = [named("Motet"), on(50, channel=3), on(72, channel=0), on(64, channel=1), on(38, channel=9)]
    track += [off(72, BEAT, channel=0), off(64, channel=1), off(50, channel=3), off(38, channel=9)]
    tracks = F0Tracks.from_midi(midi(tmp_path, track, kind=0))
    assert tracks.names == ("voice1", "voice2", "voice3")
    assert [sung(tracks, voice)[0][0] for voice in range(3)] == [72, 64, 50]


def test_midi_channels_of_one_among_several_tracks_are_one_voice(tmp_path):
    path = midi(tmp_path, [on(60), off(60, BEAT), on(62, channel=1), off(62, BEAT, channel=1)], [on(50), off(50, BEAT)])
    tracks = F0Tracks.from_midi(path)
    assert tracks.n_voices == 2
    assert_sung(sung(tracks, 0), [(60, 0, 0.5), (62, 0.5, 1)])


@pytest.mark.parametrize(
    "tracks",
    [
        [[named("x")]],
        [[on(60), off(60)]],
        [[on(40, channel=9), off(40, BEAT, channel=9)]],
        [[tempo(16), on(60), off(61, 0x0FFFFFFF), off(60, 1)]],  # days
        [[on(127), off(127, BEAT)]],
        [[on(60), off(60, BEAT)]] * 17,
    ],
)
def test_midi_without_usable_notes(tmp_path, tracks):
    path = midi(tmp_path, *tracks)
    with pytest.raises(F0Error) as caught:
        F0Tracks.from_midi(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("division", [0, -7400])
def test_midi_in_film_frames(tmp_path, division):
    path = midi(tmp_path, [on(60), off(60, BEAT)])
    content = bytearray(path.read_bytes())
    content[12:14] = division.to_bytes(2, "big", signed=True)
    path.write_bytes(content)
    with pytest.raises(F0Error, match="film frames"):
        F0Tracks.from_midi(path)


def test_missing_midi(tmp_path):
    with pytest.raises(F0Error, match=r"none\.mid"):
        F0Tracks.from_midi(tmp_path / "none.mid")


@given(st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), max_size=3), st.integers(100, 2000))
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
def test_damaged_midi_gives_tracks_or_one_error(tmp_path_factory, changes, length):
    notes = [message for n in range(20) for message in (on(60 + n), off(60 + n, 60))]
    path = midi(tmp_path_factory.getbasetemp(), [named("x"), tempo(0.5), *notes])
    content = path.read_bytes()[:length]
    for place, damage in changes:
        content = content[:place] + damage + content[place + len(damage) :]
    path.write_bytes(content)
    try:
        tracks = F0Tracks.from_midi(path)
    except F0Error as error:
        assert str(error).isprintable()
        return
    assert np.isfinite(tracks.frequencies).all()


def melody(*notes: tuple[float | None, int]) -> np.ndarray:
    """Return the pitch in semitones of notes (pitch or None for a rest, frames)."""
    return np.concatenate([np.full(frames, np.nan if pitch is None else pitch) for pitch, frames in notes])


def singing(*voices: np.ndarray, names: tuple[str, ...] = ("soprano", "alto", "tenor", "bass")) -> F0Tracks:
    return F0Tracks(np.nan_to_num(440 * 2 ** ((np.stack(voices) - 69) / 12)), names[: len(voices)])


def through_midi(folder: Path, tracks: F0Tracks) -> F0Tracks:
    tracks.to_midi(folder / "out.mid")
    return F0Tracks.from_midi(folder / "out.mid")


SCALE = ((60, 40), (62, 40), (64, 30), (None, 20), (65, 60), (64, 12), (62, 12), (60, 50))
SPANS = [(60, 0, 40), (62, 40, 80), (64, 80, 110), (65, 130, 190), (64, 190, 202), (62, 202, 214), (60, 214, 264)]


def assert_notes(found: F0Tracks, spans: list[tuple[int, int, int]], frames: int, voice: int = 0) -> None:
    notes = sung(found, voice)
    assert [note for note, *_ in notes] == [note for note, *_ in spans]
    edges = np.array([span for _, *span in notes]) / HOP
    np.testing.assert_allclose(edges, [span for _, *span in spans], atol=frames + 1e-6)


def test_to_midi_gives_plain_notes_back_exactly(tmp_path):
    tracks = singing(melody(*SCALE), melody(*((pitch and pitch - 5, n) for pitch, n in SCALE)))
    found = through_midi(tmp_path, tracks)
    np.testing.assert_allclose(found.frequencies[:, : tracks.n_frames], tracks.frequencies, rtol=1e-6)
    assert found.names == tracks.names


@pytest.mark.parametrize(("rate", "depth"), [(4, 0.3), (4, 0.7), (5, 0.3), (5, 1), (6, 1), (7, 1)])
def test_to_midi_finds_no_notes_in_vibrato(tmp_path, rate, depth):
    pitch = melody((60, 120), (62, 120), (None, 15), (67, 90))
    vibrato = depth * np.sin(2 * np.pi * rate * HOP * np.arange(len(pitch)))
    found = through_midi(tmp_path, singing(pitch + vibrato))
    assert_notes(found, [(60, 0, 120), (62, 120, 240), (67, 255, 345)], frames=4)


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("interval", [1, 3, 7, 12])
def test_to_midi_puts_the_change_into_the_middle_of_a_glide(tmp_path, seconds, interval):
    time = np.arange(200) * HOP
    pitch = 60 + interval * np.clip((time - 1.5) / seconds + 0.5, 0, 1)
    assert_notes(through_midi(tmp_path, singing(pitch)), [(60, 0, 94), (60 + interval, 94, 200)], frames=2)


def test_to_midi_bridges_drop_outs_and_drops_blips(tmp_path):
    pitch = melody((60, 60), (None, 30), (62, 60), (None, 30), (64, 60), (None, 30))
    pitch[20:24] = np.nan  # a drop-out
    pitch[110:113] = 62 + 12  # an octave error
    pitch[160:164] = 70  # too short to be a note
    found = through_midi(tmp_path, singing(pitch))
    assert_notes(found, [(60, 0, 60), (62, 90, 150), (64, 180, 240)], frames=0)


def test_to_midi_keeps_notes_apart_that_a_rest_separates(tmp_path):
    found = through_midi(tmp_path, singing(melody((60, 30), (None, 8), (60, 30))))
    assert_notes(found, [(60, 0, 30), (60, 38, 68)], frames=0)


@pytest.mark.parametrize("hop", [0.005, 0.01, 256 / 44100, 0.02])
def test_to_midi_of_other_hops(tmp_path, hop):
    repeat = np.repeat(melody(*SCALE), 4)
    fine = F0Tracks(singing(repeat).frequencies, ("a",), hop=HOP / 4).resampled(hop, int(264 * HOP / hop))
    assert_notes(through_midi(tmp_path, fine), SPANS, frames=2)


@pytest.mark.parametrize("cents", [-40, 25, 60])
def test_to_midi_rounds_to_the_tuning_of_the_ensemble(tmp_path, cents):
    """Every voice is as sharp as the others, and sings thirds a little wide: the intervals are as written."""
    lower = melody((60, 100), (62, 100), (64, 100))
    found = through_midi(tmp_path, singing(lower + 0.01 * cents + 4.1, lower + 0.01 * cents - 0.1))
    shift = round(0.01 * cents)
    assert [note for note, *_ in sung(found, 1)] == [60 + shift, 62 + shift, 64 + shift]
    assert [note for note, *_ in sung(found, 0)] == [64 + shift, 66 + shift, 68 + shift]
    text = next(message.text for message in mido.MidiFile(tmp_path / "out.mid").tracks[0] if message.type == "text")
    assert float(text.split("(")[1].split()[0]) == pytest.approx(cents - 100 * shift, abs=3)


def test_to_midi_writes_names_tempo_and_velocity(tmp_path):
    names = ("soprano1", "soprano2", "Ténor", "合唱")
    singing(*[melody((60 - n, 50)) for n in range(4)], names=names).to_midi(tmp_path / "deep" / "out.mid")
    file = mido.MidiFile(tmp_path / "deep" / "out.mid", charset="utf-8")
    assert (file.type, file.ticks_per_beat) == (1, 500)
    assert next(message.tempo for message in file.tracks[0] if message.type == "set_tempo") == 500_000
    assert [track.name for track in file.tracks[1:]] == list(names)
    notes = [message for track in file.tracks for message in track if not message.is_meta]
    assert {message.velocity for message in notes if message.type == "note_on"} == {80}
    assert {message.channel for message in notes} == {0, 1, 2, 3}
    assert F0Tracks.from_midi(tmp_path / "deep" / "out.mid").names == names
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.mid"]


def test_to_midi_of_sixteen_voices_avoids_percussion(tmp_path):
    names = tuple(f"voice{n}" for n in range(16))
    found = through_midi(tmp_path, singing(*[melody((80 - n, 50)) for n in range(16)], names=names))
    assert found.names == names
    assert [sung(found, voice)[0][0] for voice in range(16)] == [80 - n for n in range(16)]


def test_to_midi_of_voices_that_rest_throughout(tmp_path):
    silent = np.full(50, np.nan)
    singing(melody((60, 50)), silent).to_midi(tmp_path / "one.mid")
    assert F0Tracks.from_midi(tmp_path / "one.mid").names == ("soprano",)
    found = F0Tracks.from_midi(tmp_path / "one.mid", ["alto", "soprano"])
    assert found.voiced.any(axis=1).tolist() == [False, True]
    singing(silent).to_midi(tmp_path / "none.mid")
    with pytest.raises(F0Error):
        F0Tracks.from_midi(tmp_path / "none.mid")


def test_to_midi_of_noise_is_a_melody(tmp_path):
    """Notes of random f0 follow each other, none shorter than 0.1 s less half a frame."""
    rng = np.random.default_rng(0)
    f0 = rng.uniform(60, 1100, (4, 5000)) * (rng.random((4, 5000)) > 0.2)
    F0Tracks(f0, ("a", "b", "c", "d")).to_midi(tmp_path / "x.mid")
    for track in mido.MidiFile(tmp_path / "x.mid").tracks[1:]:
        notes = [message for message in track if not message.is_meta]
        assert [message.type for message in notes] == ["note_on", "note_off"] * (len(notes) // 2)
        assert all(message.time >= 92 for message in notes[1::2])


def test_to_midi_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x.mid"):
        with pytest.raises(OutputError):
            singing(melody((60, 50))).to_midi(path)
