"""F0 of every voice of a mixture: from posteriors to candidates to tracks, with a network that has learned nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vocalsep import audio, weights
from vocalsep.audio.downmix import Mixdown
from vocalsep.errors import AudioError, OptionError, VoicesError, WeightsError
from vocalsep.evaluation.metrics import f0_f_measure
from vocalsep.f0 import polyphonic
from vocalsep.f0.monophonic import f0_from_stems
from vocalsep.f0.network import Logits, Tracker, TrackerConfig, describe, harmonic_stack, load_tracker, normalised
from vocalsep.f0.polyphonic import Candidates, Levelled, decode, find_candidates, track_polyphonic
from vocalsep.f0.tracks import F0Tracks
from vocalsep.voices import Voice, parse_voices

GRID = TrackerConfig()
TINY = TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4)
EVERYWHERE = torch.ones(1, GRID.n_bins, dtype=torch.bool)


def peaks(posterior: np.ndarray, inside: torch.Tensor = EVERYWHERE) -> Candidates:
    """Candidates of probabilities of one voice, shape (frames, pitches); what is left to 1 is silence."""
    known = torch.from_numpy(np.asarray(posterior, dtype=np.float64))[None]
    logits = Logits(known.clamp_min(1e-30).log(), (1 - known.sum(dim=-1)).clamp_min(1e-30).log())
    return polyphonic._peaks(logits, inside, GRID)


def bell(centre: float, mass: float = 1.0) -> np.ndarray:
    """What the network learns to say of an f0 between bins."""
    density = np.exp(-0.5 * (np.arange(GRID.n_bins) - centre) ** 2)
    return mass * density / density.sum()


class TestPeaks:
    @pytest.mark.parametrize("fraction", np.arange(-0.5, 0.51, 0.125))
    def test_f0_between_bins_is_found_to_2_cents(self, fraction: float) -> None:
        found = peaks(bell(100 + fraction, 0.9)[None])
        assert abs(found.position[0, 0, 0] - (100 + fraction)) * 20 < 2
        assert found.silent[0, 0] == pytest.approx(0.1, abs=1e-5)

    def test_probability_is_the_mass_within_50_cents(self) -> None:
        """Two bins on both sides, each of which reaches 10 cents further."""
        random = np.random.default_rng(0).random(GRID.n_bins) ** 8
        posterior = 0.8 * random / random.sum()
        found = peaks(posterior[None])
        highest = [posterior[max(k - 2, 0) : k + 3].sum() for k in range(GRID.n_bins)]
        assert found.probability[0, 0, 0] == pytest.approx(max(highest), rel=1e-5)
        assert abs(found.position[0, 0, 0] - np.argmax(highest)) <= 2
        for probability, position in zip(found.probability[0, 0], found.position[0, 0], strict=True):
            near = [highest[k] for k in range(GRID.n_bins) if abs(k - position) <= 2]
            assert np.isclose(near, probability, rtol=1e-5).any()

    def test_several_notes_are_told_apart_and_the_likeliest_comes_first(self) -> None:
        found = peaks((bell(40.3, 0.2) + bell(100.0, 0.5) + bell(180.4, 0.25))[None])
        np.testing.assert_allclose(found.position[0, 0, :3], [100.0, 180.4, 40.3], atol=0.1)
        np.testing.assert_allclose(found.probability[0, 0, :3], [0.5, 0.25, 0.2], rtol=0.02)
        assert found.probability[0, 0, 3:].max() < 1e-3

    def test_one_note_is_one_candidate(self) -> None:
        """None of its shoulders, which hold more than many a note does."""
        found = peaks(bell(100.0)[None])
        assert found.probability[0, 0, 1:].max() < 0.02
        assert (np.abs(found.position[0, 0, 1:] - 100) > 2.5)[found.probability[0, 0, 1:] > 0].all()

    def test_frames_and_voices_are_on_their_own(self) -> None:
        centres = np.array([[30.0, 90.0, 200.0], [220.0, 64.0, 5.0]])
        logits = Logits(torch.from_numpy(np.log(bell(centres[..., None]) + 1e-30)), torch.full((2, 3), -9.0))
        found = polyphonic._peaks(logits, EVERYWHERE.expand(2, -1), GRID)
        np.testing.assert_allclose(found.position[..., 0], centres, atol=0.1)

    def test_outside_the_range_is_no_candidate_and_takes_no_probability(self) -> None:
        inside = torch.zeros(1, GRID.n_bins, dtype=torch.bool)
        inside[0, 50:150] = True
        found = peaks((bell(180.0, 0.6) + bell(100.0, 0.2))[None], inside)
        assert found.position[0, 0, 0] == pytest.approx(100, abs=0.05)
        assert found.probability[0, 0, 0] == pytest.approx(0.5, rel=0.02)  # 0.2 of 0.2 and the silence of 0.2
        assert found.silent[0, 0] == pytest.approx(0.5, rel=0.02)
        real = found.probability > 0
        assert ((found.position >= 50) & (found.position < 150))[real].all()

    def test_a_range_off_the_grid_leaves_silence(self) -> None:
        found = peaks(bell(100.0)[None], torch.zeros(1, GRID.n_bins, dtype=torch.bool))
        assert found.probability.max() == 0
        assert found.silent[0, 0] == 1
        assert np.isfinite(found.position).all()

    def test_the_edges_of_the_grid(self) -> None:
        for edge in (0, GRID.n_bins - 1):
            found = peaks(np.eye(GRID.n_bins)[[edge]] * 0.9)
            assert found.position[0, 0, 0] == edge
            assert found.probability[0, 0, 0] == pytest.approx(0.9)


def test_ranges_hold_the_pitches_that_are_nearest_to_their_limits() -> None:
    pitches = GRID.pitches().numpy()
    cents = 1200 * np.log2(pitches[None] / np.array([[220.0], [440.0]]))
    for voice in (Voice("a", 220.0, 440.0), Voice("b", 221.0, 437.0)):
        inside = polyphonic._inside(GRID, (voice,))[0].numpy()
        np.testing.assert_array_equal(np.diff(inside.astype(int)).nonzero()[0].shape, (2,))
        low, high = (pitches[inside].min() / voice.fmin, pitches[inside].max() / voice.fmax)
        assert max(abs(1200 * np.log2(low)), abs(1200 * np.log2(high))) <= 10.001
        assert inside[(cents[0] > 10) & (cents[1] < -22)].all()


def sung(probabilities: list[list[float]], silent: list[float], bins: list[list[float]] | None = None) -> Candidates:
    """Candidates of one voice: probabilities by frame."""
    probability = np.array([probabilities], dtype=np.float32)
    position = np.zeros_like(probability) if bins is None else np.array([bins], dtype=np.float32)
    return Candidates(probability, position, np.array([silent], dtype=np.float32))


def candidates_in(network: Tracker, sound: np.ndarray, voices: tuple[Voice, ...], *progress) -> Candidates:
    return Candidates.joined(list(find_candidates(network, Levelled(Mixdown.of_array(sound)), voices, *progress)))


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


def with_bias(network: Tracker, path: Path, nats: float) -> Path:
    """A checkpoint of the network, with so much more evidence of silence."""
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["silence.bias"][0] += nats
    weights.save(path, TINY.to_json(), tensors)
    return path


@pytest.fixture(scope="module")
def undecided(opinionated, tmp_path_factory) -> Path:
    return with_bias(opinionated, tmp_path_factory.mktemp("tracker") / "undecided.safetensors", 0.0)


@pytest.fixture(scope="module")
def talkative(opinionated, tmp_path_factory) -> Path:
    return with_bias(opinionated, tmp_path_factory.mktemp("tracker") / "talkative.safetensors", -30.0)


@pytest.fixture(scope="module")
def mute(opinionated, tmp_path_factory) -> Path:
    return with_bias(opinionated, tmp_path_factory.mktemp("tracker") / "mute.safetensors", 30.0)


class TestChunks:
    @pytest.mark.parametrize("length", [100, 257, 600])
    def test_chunks_give_what_the_whole_gives(self, monkeypatch, undecided, sound, length) -> None:
        """Beyond the context, of 3 s, nothing is heard: probabilities agree to 1e-5, positions to 0.1 cents."""
        network, voices = load_tracker(str(undecided)), parse_voices("SATB")
        whole = candidates_in(network, sound, voices)
        assert whole.silent.shape == (4, 626)
        monkeypatch.setattr(polyphonic, "_CHUNK_FRAMES", length)
        seen: list[float] = []
        chunked = candidates_in(network, sound, voices, seen.append)
        assert seen == [min(first + length, 626) / 626 for first in range(0, 626, length)]
        np.testing.assert_allclose(chunked.silent, whole.silent, atol=1e-5)
        np.testing.assert_allclose(chunked.probability, whole.probability, atol=1e-5)
        # Two peaks as high as each other may change places.
        clear = np.diff(whole.probability, axis=-1, prepend=2.0, append=-1.0) < -1e-3
        clear = clear[..., :-1] & clear[..., 1:]
        assert clear.mean() > 0.5
        np.testing.assert_allclose(chunked.position[clear], whole.position[clear], atol=0.005)

    def test_the_context_is_needed(self, monkeypatch, undecided, sound) -> None:
        network, voices = load_tracker(str(undecided)), parse_voices("SATB")
        whole = candidates_in(network, sound, voices)
        monkeypatch.setattr(polyphonic, "_CHUNK_FRAMES", 100)
        monkeypatch.setattr(polyphonic, "_CONTEXT_FRAMES", 0)
        assert np.abs(candidates_in(network, sound, voices).probability - whole.probability).max() > 0.03


class TestTracks:
    def test_a_voice_is_never_tracked_outside_its_range(self, talkative, sound) -> None:
        """To half a bin, 10 cents."""
        voices = "high=600-900, middle=200-300, low=70-110, narrow=440-445"
        tracks = track_polyphonic(sound, 16000, voices, model=talkative, device="cpu")
        assert tracks.names == ("high", "middle", "low", "narrow")
        assert tracks.voiced.mean() > 0.9
        limits = np.array([(voice.fmin, voice.fmax) for voice in parse_voices(voices)])[..., None]
        low, high = limits[:, 0] * 2 ** (-10.1 / 1200), limits[:, 1] * 2 ** (10.1 / 1200)
        assert ((tracks.frequencies >= low) & (tracks.frequencies <= high))[tracks.voiced].all()

    def test_a_voice_beyond_the_grid_is_unvoiced(self, talkative, sound) -> None:
        tracks = track_polyphonic(sound, 16000, "whistle=2000-4000, low=70-110", model=talkative, device="cpu")
        assert not tracks.voiced[0].any()
        assert tracks.voiced[1].any()

    def test_confidence_is_the_probability_where_voiced_and_else_0(self, undecided, sound, monkeypatch) -> None:
        for name, value in (("_CALIBRATION", (1.0, 0.0)), ("_VOICING_BIAS", 0.0), ("_SMALL_BIAS", 0.0)):
            monkeypatch.setattr(polyphonic, name, value)
        tracks = track_polyphonic(sound, 16000, "SATB", model=undecided, device="cpu")
        assert 0.02 < tracks.voiced.mean() < 0.98
        np.testing.assert_array_equal(tracks.confidence > 0, tracks.voiced)
        assert tracks.confidence.max() <= 1 + 1e-6
        found = candidates_in(load_tracker(str(undecided)), sound, parse_voices("SATB"))
        chosen = np.maximum(decoded(found), 0)[..., None]
        expected = np.take_along_axis(found.probability, chosen, axis=-1)[..., 0]
        np.testing.assert_allclose(tracks.confidence[tracks.voiced], expected[tracks.voiced], rtol=1e-5)

    def test_who_is_mute_is_unvoiced_unless_biased(self, mute, sound) -> None:
        tracks = track_polyphonic(sound, 16000, "SB", model=mute, device="cpu")
        assert not tracks.voiced.any()
        assert tracks.confidence.max() == 0
        assert track_polyphonic(sound, 16000, "SB", model=mute, device="cpu", voicing_bias=1e3).voiced.all()

    def test_more_bias_never_finds_less(self, undecided, sound) -> None:
        voiced = [
            track_polyphonic(sound, 16000, "SATB", model=undecided, device="cpu", voicing_bias=bias).voiced.mean()
            for bias in (-3.0, 0.0, 3.0)
        ]
        assert voiced[0] < voiced[1] < voiced[2]

    @pytest.mark.parametrize("samples", [1, 255, 256, 16000])
    def test_silence_is_unvoiced_on_the_grid(self, talkative, samples) -> None:
        for level in (0.0, 0.9e-5):
            tracks = track_polyphonic(np.full(samples, level), 16000, "SATB", model=talkative, device="cpu")
            assert tracks.frequencies.shape == (4, 1 + samples // 256)
            assert not tracks.voiced.any()
            assert tracks.confidence.max() == 0

    def test_a_constant_is_silence_too(self, talkative) -> None:
        assert not track_polyphonic(np.full(16000, 0.3), 16000, "SATB", model=talkative, device="cpu").voiced.any()

    def test_level_offset_and_channels_do_not_matter(self, undecided, sound) -> None:
        plain = track_polyphonic(sound, 16000, "SATB", model=undecided, device="cpu")
        quiet = np.stack([sound, sound]) * np.float32(2**-9) + np.float32(0.125)
        other = track_polyphonic(quiet, 16000, "SATB", model=undecided, device="cpu")
        assert (plain.voiced == other.voiced).mean() > 0.995
        both = plain.voiced & other.voiced
        cents = 1200 * np.abs(np.log2(plain.frequencies[both] / other.frequencies[both]))
        assert np.mean(cents < 1) > 0.99

    def test_another_sample_rate_gives_the_same_grid(self, talkative) -> None:
        tracks = track_polyphonic(np.random.default_rng(0).normal(size=44100), 44100, 2, model=talkative, device="cpu")
        assert tracks.frequencies.shape == (2, 63)
        assert tracks.names == ("voice1", "voice2")

    def test_what_cannot_be_tracked(self, talkative, tiny_model, sound) -> None:
        with pytest.raises(AudioError):
            track_polyphonic(np.zeros(0), 16000, model=talkative)
        with pytest.raises(AudioError):
            track_polyphonic(np.full(999, np.nan), 16000, model=talkative)
        with pytest.raises(VoicesError):
            track_polyphonic(sound, 16000, "SXB", model=talkative)
        with pytest.raises(OptionError, match="device is 'tpu'"):
            track_polyphonic(sound, 16000, model=talkative, device="tpu")
        with pytest.raises(WeightsError, match="not those of a tracker"):
            track_polyphonic(sound, 16000, model=tiny_model)


def test_calibration_keeps_the_order_and_the_ends() -> None:
    probability = np.linspace(0, 1, 101, dtype=np.float32)
    calibrated = polyphonic._calibrated(probability)
    assert (np.diff(calibrated) > 0).all()
    assert calibrated[0] < 1e-3
    assert calibrated[-1] > 1 - 1e-3


@pytest.fixture(scope="module")
def chorale() -> tuple[np.ndarray, F0Tracks]:
    """The example: a synthetic chorale with its true f0."""
    folder = Path(__file__).parents[1] / "examples"
    waveform, sample_rate = audio.read(folder / "chorale.flac")
    return audio.to_model_rate(waveform, sample_rate), F0Tracks.from_csv(folder / "chorale_f0.csv")


class TestBundledWeights:
    """What the weights that ship can do. Real singers they have all heard: those figures are no quality."""

    def test_the_chorale(self, chorale) -> None:
        mixture, true = chorale
        tracks = track_polyphonic(mixture, 16000)
        frames = min(true.n_frames, tracks.n_frames)
        measure = f0_f_measure(true.frequencies[:, :frames], tracks.frequencies[:, :frames])
        assert measure.min() > 0.85
        sung = true.voiced[:, :frames]
        assert tracks.confidence[:, :frames][sung].mean() > 0.7

    def test_what_is_far_away_changes_nothing(self, chorale) -> None:
        mixture = chorale[0]
        network, voices = load_tracker("tracker"), parse_voices("SATB")
        first, context = 2 * polyphonic._CHUNK_FRAMES, polyphonic._CONTEXT_FRAMES
        whole = candidates_in(network, mixture, voices)
        part = mixture[first * 256 :]
        later = candidates_in(network, part, voices)
        behind = slice(polyphonic._CHUNK_FRAMES, None)  # the first chunk of the part lacks its context
        assert first > context
        differing = np.abs(later.silent[:, behind] - whole.silent[:, first:][:, behind])
        # All that is left is loudness, relative to which 80 dB are the floor.
        assert differing.max() < 0.05
        assert np.median(differing) < 1e-3

    @pytest.mark.parametrize(("voices", "parts"), [("SATB", "SATB"), ("SAB", "SAB"), ("TB", "TB"), (3, "SAT")])
    def test_real_singers(self, data, voices, parts) -> None:
        names = {"S": "soprano", "A": "alto", "T": "tenor", "B": "bass"}
        stems = [audio.read(data / "csd" / "locus_iste" / f"{names[part]}.flac").waveform for part in parts]
        mixture = np.sum(stems, axis=0)
        tracks = track_polyphonic(mixture, 16000, voices)
        measure = f0_f_measure(f0_from_stems(stems).frequencies, tracks.frequencies)
        assert measure.mean() > 0.85
        assert measure.min() > 0.75

    def test_noise_is_no_voice(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
        assert track_polyphonic(noise, 16000).voiced.mean() < 0.1
