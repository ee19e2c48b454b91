"""F0 of every voice of a mixture: from posteriors to candidates to tracks."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from vocalsep.api import f0_from_stems, track_polyphonic
from vocalsep.audio import read
from vocalsep.audio.downmix import Downmix
from vocalsep.dsp.units import hz_to_cents
from vocalsep.errors import AudioError, OptionError, VoicesError, WeightsError
from vocalsep.evaluation.f0_metrics import f_measure
from vocalsep.f0.network import Logits, Tracker, TrackerConfig, describe, harmonic_stack, normalised
from vocalsep.f0.polyphonic import Candidates, decode, find_candidates, peaks, track
from vocalsep.f0.tracks import F0Tracks
from vocalsep.voices import parse_voices

EXAMPLES = Path(__file__).parents[1] / "examples"
GRID = TrackerConfig()
TINY = TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4)
EVERYWHERE = torch.ones(1, GRID.n_bins, dtype=torch.bool)


def peaks_of(posterior: np.ndarray, inside: torch.Tensor = EVERYWHERE) -> Candidates:
    """Candidates of one voice from probabilities, shape (frames, pitches); the rest to 1 is silence."""
    known = torch.from_numpy(np.asarray(posterior, dtype=np.float64))[None]
    logits = Logits(known.clamp_min(1e-30).log(), (1 - known.sum(dim=-1)).clamp_min(1e-30).log())
    return peaks(logits, inside, GRID)


def bell(centre: float, mass: float = 1.0) -> np.ndarray:
    """A posterior of an f0 between bins, as the network learns it."""
    density = np.exp(-0.5 * (np.arange(GRID.n_bins) - centre) ** 2)
    return mass * density / density.sum()


class TestPeaks:
    @pytest.mark.parametrize("fraction", np.arange(-0.5, 0.51, 0.125))
    def test_f0_between_bins_is_found_to_2_cents(self, fraction: float) -> None:
        found = peaks_of(bell(100 + fraction, 0.9)[None])
        assert abs(found.position[0, 0, 0] - (100 + fraction)) * 20 < 2
        assert found.silent[0, 0] == pytest.approx(0.1, abs=1e-5)

    def test_probability_is_the_mass_within_50_cents(self) -> None:
        """Two bins on both sides, each of which reaches 10 cents further."""
        random = np.random.default_rng(0).random(GRID.n_bins) ** 8
        posterior = 0.8 * random / random.sum()
        found = peaks_of(posterior[None])
        highest = [posterior[max(k - 2, 0) : k + 3].sum() for k in range(GRID.n_bins)]
        assert found.probability[0, 0, 0] == pytest.approx(max(highest), rel=1e-5)
        assert abs(found.position[0, 0, 0] - np.argmax(highest)) <= 2
        for probability, position in zip(found.probability[0, 0], found.position[0, 0], strict=True):
            near = [highest[k] for k in range(GRID.n_bins) if abs(k - position) <= 2]
            assert np.isclose(near, probability, rtol=1e-5).any()

    def test_several_notes_are_found_and_the_likeliest_comes_first(self) -> None:
        found = peaks_of((bell(40.3, 0.2) + bell(100.0, 0.5) + bell(180.4, 0.25))[None])
        np.testing.assert_allclose(found.position[0, 0, :3], [100.0, 180.4, 40.3], atol=0.1)
        np.testing.assert_allclose(found.probability[0, 0, :3], [0.5, 0.25, 0.2], rtol=0.02)
        assert found.probability[0, 0, 3:].max() < 1e-3

    def test_one_note_is_one_candidate(self) -> None:
        """None of its shoulders, which hold more than many a note does."""
        found = peaks_of(bell(100.0)[None])
        assert found.probability[0, 0, 1:].max() < 0.02
        assert (np.abs(found.position[0, 0, 1:] - 100) > 2.5)[found.probability[0, 0, 1:] > 0].all()

    def test_frames_and_voices_are_on_their_own(self) -> None:
        centres = np.array([[30.0, 90.0, 200.0], [220.0, 64.0, 5.0]])
        logits = Logits(torch.from_numpy(np.log(bell(centres[..., None]) + 1e-30)), torch.full((2, 3), -9.0))
        found = peaks(logits, EVERYWHERE.expand(2, -1), GRID)
        np.testing.assert_allclose(found.position[..., 0], centres, atol=0.1)

    def test_outside_the_range_is_no_candidate_and_takes_no_probability(self) -> None:
        inside = torch.zeros(1, GRID.n_bins, dtype=torch.bool)
        inside[0, 50:150] = True
        found = peaks_of((bell(180.0, 0.6) + bell(100.0, 0.2))[None], inside)
        assert found.position[0, 0, 0] == pytest.approx(100, abs=0.05)
        assert found.probability[0, 0, 0] == pytest.approx(0.5, rel=0.02)  # 0.2 of 0.2 and the silence of 0.2
        assert found.silent[0, 0] == pytest.approx(0.5, rel=0.02)
        real = found.probability > 0
        assert ((found.position >= 50) & (found.position < 150))[real].all()

    def test_a_range_off_the_grid_leaves_silence(self) -> None:
        found = peaks_of(bell(100.0)[None], torch.zeros(1, GRID.n_bins, dtype=torch.bool))
        assert found.probability.max() == 0
        assert found.silent[0, 0] == 1
        assert np.isfinite(found.position).all()

    def test_the_edges_of_the_grid(self) -> None:
        for edge in (0, GRID.n_bins - 1):
            found = peaks_of(np.eye(GRID.n_bins)[[edge]] * 0.9)
            assert found.position[0, 0, 0] == edge
            assert found.probability[0, 0, 0] == pytest.approx(0.9)


def sung(probabilities: list[list[float]], silent: list[float], bins: list[list[float]] | None = None) -> Candidates:
    """Candidates of one voice: probabilities by frame."""
    probability = np.array([probabilities], dtype=np.float32)
    position = np.zeros_like(probability) if bins is None else np.array([bins], dtype=np.float32)
    return Candidates(probability, position, np.array([silent], dtype=np.float32))


def candidates_in(network: Tracker, sound: np.ndarray, voices: str = "SATB") -> Candidates:
    return Candidates.joined(list(find_candidates(Downmix.of_array(sound), parse_voices(voices), network)))


def decoded(candidates: Candidates, voicing_bias: float = 0.0) -> np.ndarray:
    return decode(candidates, GRID.bins_per_octave, voicing_bias)


class TestDecode:
    def test_notes_where_they_are_likely_and_rests_where_silence_is(self) -> None:
        found = decoded(sung([[0.9]] * 5 + [[0.02]] * 5 + [[0.9]] * 5, [0.05] * 5 + [0.95] * 5 + [0.05] * 5))
        assert found.tolist() == [[0] * 5 + [-1] * 5 + [0] * 5]

    def test_a_doubtful_frame_interrupts_no_note(self) -> None:
        found = decoded(sung([[0.9]] * 5 + [[0.3]] * 2 + [[0.9]] * 5, [0.05] * 5 + [0.7] * 2 + [0.05] * 5))
        assert (found == 0).all()

    def test_the_voicing_bias_is_the_evidence_that_is_missing(self) -> None:
        """Silence is 4 / 3 as likely as the note: ln 4 / 3 = 0.288 nats."""
        doubtful = sung([[0.3]] * 50, [0.4] * 50)
        assert (decoded(doubtful) == -1).all()
        assert (decoded(doubtful, 0.28) == -1).all()
        assert (decoded(doubtful, 0.30) == 0).all()
        assert (decoded(sung([[0.4]] * 50, [0.3] * 50), -0.30) == -1).all()

    def test_no_bias_brings_a_candidate_that_is_none(self) -> None:
        assert (decoded(sung([[0.0]] * 9, [1.0] * 9), 1e6) == -1).all()
        assert (decoded(sung([[0.0, 0.5]] * 9, [0.5] * 9), 1e6) == 1).all()

    def test_an_octave_for_a_moment_is_an_error_and_a_lasting_one_a_note(self) -> None:
        bins = [[100.0, 160.0]] * 40
        moment = [[0.8, 0.1]] * 19 + [[0.3, 0.6]] * 2 + [[0.8, 0.1]] * 19
        lasting = [[0.8, 0.1]] * 20 + [[0.1, 0.8]] * 20
        assert (decoded(sung(moment, [0.01] * 40, bins)) == 0).all()
        assert decoded(sung(lasting, [0.01] * 40, bins)).tolist() == [[0] * 20 + [1] * 20]

    def test_a_step_is_measured_in_semitones_on_any_grid(self) -> None:
        """Half an octave for a moment: 30 bins of 60, and not worth it; 30 bins of 1200 are 30 cents."""
        moment = sung([[0.8, 0.1]] * 9 + [[0.2, 0.7]] + [[0.8, 0.1]] * 9, [0.01] * 19, [[100.0, 130.0]] * 19)
        assert (decode(moment, 60) == 0).all()
        assert decode(moment, 1200).tolist() == [[0] * 9 + [1] + [0] * 9]

    def test_candidates_change_places_but_the_melody_stays(self) -> None:
        bins = [[100.0, 160.0], [160.4, 100.2]] * 10
        found = decoded(sung([[0.45, 0.45], [0.5, 0.4]] * 10, [0.01] * 20, bins))
        assert found.tolist() in ([[0, 1] * 10], [[1, 0] * 10])


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Ten seconds of chords and noise."""
    rng = np.random.default_rng(0)
    time = np.arange(160000) / 16000
    tones = sum(np.sin(2 * np.pi * f * time) * np.sin(time * (1 + f % 3)) for f in (130.8, 196.0, 311.1, 523.3))
    return (0.1 * tones + 0.01 * rng.normal(size=len(time))).astype(np.float32)


_PEAK_SHARE = 2.5  # nats between all pitches and the likeliest 50 cents


@pytest.fixture(scope="module")
def opinionated(sound) -> Tracker:
    """An untrained network with firm opinions on pitches, which finds voices in about half the frames."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Tracker(TINY).eval().requires_grad_(False)
    network.reader.weight *= 200
    network.listening.weight *= 20
    # Gates that let go: the layer forgets within a second, well within the context of a chunk.
    for name, parameter in network.recurrent.named_parameters():
        if name.startswith("bias_ih"):
            parameter[TINY.hidden : 2 * TINY.hidden] -= 2
    stack = harmonic_stack(normalised(torch.from_numpy(sound)), TINY)[None]
    pitch, silent = network(stack, describe(parse_voices("SATB"))[None])
    network.silence.bias[0] += (pitch.logsumexp(dim=-1) - silent).median() - _PEAK_SHARE
    return network


@pytest.fixture(scope="module")
def mute(opinionated) -> Tracker:
    """The network with 30 nats more evidence of silence."""
    other = copy.deepcopy(opinionated)
    other.silence.bias[0] += 30.0
    return other


def tracked(sound: np.ndarray, voices: str | int, network: Tracker, **options: float) -> F0Tracks:
    return track(Downmix.of_array(np.float32(sound)), parse_voices(voices), network, **options)


@pytest.mark.slow
def test_chunks_give_the_same_tracks_as_the_whole(opinionated, sound):
    """More than two of the minutes in which paths are found, against one path through all candidates."""
    long = np.resize(sound, 16000 * 130)
    found = candidates_in(opinionated, long)
    chosen = decoded(found, -1.0 + 6.0 / 4)  # the voicing bias of four voices
    picked = np.maximum(chosen, 0)[..., None]
    position = np.take_along_axis(found.position, picked, axis=-1)[..., 0]
    expected = np.where(chosen >= 0, GRID.fmin * np.exp2(position / GRID.bins_per_octave), 0)
    fractions: list[float] = []
    tracks = tracked(long, "SATB", opinionated, progress=fractions.append)
    np.testing.assert_allclose(tracks.frequencies, expected, rtol=1e-5)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_distant_sound_changes_nothing(opinionated, sound):
    """The candidates of a recording and of its second half agree beyond the context of a chunk."""
    whole, half = candidates_in(opinionated, np.tile(sound, 2)), candidates_in(opinionated, sound)
    assert whole.silent.shape == (4, 1251)
    inner = slice(250, 500)  # the second chunk of the half; the halves begin 625 frames apart, at other chunk borders
    np.testing.assert_allclose(half.silent[:, inner], whole.silent[:, 625:][:, inner], atol=0.02)


class TestTracks:
    def test_a_voice_is_never_tracked_outside_its_range(self, opinionated, sound):
        """To half a bin, 10 cents."""
        voices = "high=600-900, middle=200-300, low=70-110, narrow=440-445"
        tracks = tracked(sound, voices, opinionated, voicing_bias=30.0)
        assert tracks.names == ("high", "middle", "low", "narrow")
        assert tracks.voiced.mean() > 0.9
        limits = np.array([(voice.fmin, voice.fmax) for voice in parse_voices(voices)])[..., None]
        low, high = limits[:, 0] * 2 ** (-10.1 / 1200), limits[:, 1] * 2 ** (10.1 / 1200)
        assert ((tracks.frequencies >= low) & (tracks.frequencies <= high))[tracks.voiced].all()

    def test_a_voice_beyond_the_grid_is_unvoiced(self, opinionated, sound):
        tracks = tracked(sound, "whistle=2000-4000, low=70-110", opinionated, voicing_bias=30.0)
        assert not tracks.voiced[0].any()
        assert tracks.voiced[1].any()

    def test_confidence_grows_with_probability_and_is_0_where_unvoiced(self, opinionated, sound):
        tracks = tracked(sound, "SATB", opinionated)
        assert 0.02 < tracks.voiced.mean() < 0.98
        np.testing.assert_array_equal(tracks.confidence > 0, tracks.voiced)
        assert tracks.confidence.max() <= 1
        found = candidates_in(opinionated, sound)
        chosen = np.maximum(decoded(found, -1.0 + 6.0 / 4), 0)[..., None]
        probability = np.take_along_axis(found.probability, chosen, axis=-1)[..., 0]
        order = np.argsort(probability[tracks.voiced])
        assert (np.diff(tracks.confidence[tracks.voiced][order]) >= -1e-4).all()

    def test_a_mute_voice_is_unvoiced_unless_biased(self, mute, sound):
        tracks = tracked(sound, "SB", mute)
        assert not tracks.voiced.any()
        assert tracks.confidence.max() == 0
        assert tracked(sound, "SB", mute, voicing_bias=1e3).voiced.all()

    def test_more_bias_never_finds_less(self, opinionated, sound):
        voiced = [tracked(sound, "SATB", opinionated, voicing_bias=bias).voiced.mean() for bias in (-3.0, 0.0, 3.0)]
        assert voiced[0] < voiced[1] < voiced[2]

    @pytest.mark.parametrize("samples", [1, 255, 256, 16000])
    @pytest.mark.parametrize("level", [0.0, 0.9e-5])
    def test_silence_is_unvoiced_on_the_grid(self, opinionated, samples, level):
        tracks = tracked(np.full(samples, level), "SATB", opinionated, voicing_bias=30.0)
        assert tracks.frequencies.shape == (4, 1 + samples // 256)
        assert not tracks.voiced.any()
        assert tracks.confidence.max() == 0

    def test_a_constant_is_silence_too(self, opinionated):
        assert not tracked(np.full(16000, 0.3), "SATB", opinionated, voicing_bias=30.0).voiced.any()

    def test_level_and_offset_do_not_matter(self, opinionated, sound):
        plain, other = (tracked(x, "SATB", opinionated) for x in (sound, sound * np.float32(2**-9) + 0.125))
        assert (plain.voiced == other.voiced).mean() > 0.995
        both = plain.voiced & other.voiced
        cents = hz_to_cents(plain.frequencies[both], other.frequencies[both])
        assert np.mean(np.abs(cents) < 1) > 0.99


@pytest.mark.slow
class TestBundledWeights:
    """The bundled weights were trained on all these singers: the scores are no measure of quality."""

    def test_the_chorale(self):
        """The example, a synthetic chorale with its true f0."""
        waveform, sample_rate = read(EXAMPLES / "chorale.flac")
        true = F0Tracks.from_csv(EXAMPLES / "chorale_f0.csv")
        tracks = track_polyphonic(np.stack([waveform[0], waveform[0]]), sample_rate)
        frames = min(true.n_frames, tracks.n_frames)
        measure = f_measure(true.frequencies[:, :frames], tracks.frequencies[:, :frames])
        assert measure.min() > 0.85
        assert tracks.confidence[:, :frames][true.voiced[:, :frames]].mean() > 0.7

    @pytest.mark.parametrize(("voices", "parts"), [("SATB", "SATB"), ("SAB", "SAB"), ("TB", "TB"), (3, "SAT")])
    def test_real_singers(self, data, voices, parts):
        names = {"S": "soprano", "A": "alto", "T": "tenor", "B": "bass"}
        stems = [read(data / "csd" / "locus_iste" / f"{names[part]}.flac").waveform for part in parts]
        tracks = track_polyphonic(np.sum(stems, axis=0), 16000, voices)
        measure = f_measure(f0_from_stems(stems).frequencies, tracks.frequencies)
        assert measure.mean() > 0.85
        assert measure.min() > 0.75

    def test_noise_is_no_voice(self):
        noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
        assert track_polyphonic(noise, 16000).voiced.mean() < 0.1

    def test_bad_arguments(self, tiny_model):
        sound = np.zeros(1000)
        with pytest.raises(AudioError):
            track_polyphonic(np.zeros(0), 16000)
        with pytest.raises(AudioError):
            track_polyphonic(np.full(999, np.nan), 16000)
        with pytest.raises(VoicesError):
            track_polyphonic(sound, 16000, "SXB")
        with pytest.raises(OptionError):
            track_polyphonic(sound, 16000, device="tpu")
        with pytest.raises(WeightsError):
            track_polyphonic(sound, 16000, model=tiny_model)
