"""Training: augmentation that does what it says, sources, the loss, and the loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vocalsep import audio, weights
from vocalsep.dsp.stft import StftGrid, power
from vocalsep.errors import AudioError, F0Error, OptionError, WeightsError
from vocalsep.f0 import monophonic as single
from vocalsep.f0.network import Tracker, TrackerConfig, load_tracker
from vocalsep.f0.tracks import F0Tracks
from vocalsep.model.estimator import Estimator, EstimatorConfig, load_estimator
from vocalsep.model.synthesizer import VoiceParameters, synthesize
from vocalsep.model.synthesizer.all_pole import lsf_from_logits
from vocalsep.model.synthesizer.excitation import glottal_roll_off
from vocalsep.model.synthesizer.spectrogram import filter_log_magnitude
from vocalsep.training import augment, sources
from vocalsep.training.data import MixedSource, MixtureSource, SingerSource, Take
from vocalsep.training.ensembles import EnsembleSource
from vocalsep.training.losses import TrackerLoss, estimator_loss, loss_grids, mixture_loss, spectral_distance
from vocalsep.training.sources import load_singers, mixture_sources, singer_sources, split_singers, training_sources
from vocalsep.training.trainer import Progress, Trainer, TrainingConfig

PARTS = {"soprano": 520.0, "alto": 330.0, "tenor": 210.0, "bass": 110.0}


def melody(f0: float, frames: int, seed: int = 0) -> np.ndarray:
    """Notes of half a second around f0, with vibrato and a rest now and then, shape (frames,)."""
    rng = np.random.default_rng(seed)
    notes = np.repeat(rng.integers(-4, 5, -(-frames // 31)), 31)[:frames]
    track = f0 * 2 ** (notes / 12 + 0.02 * np.sin(np.arange(frames) * 0.55))
    rests = np.repeat(rng.random(-(-frames // 31)) < 0.15, 31)[:frames]
    return np.where(rests, 0, track).astype(np.float32)


def take(f0: np.ndarray, sing, name: str = "take") -> Take:
    f0 = np.atleast_2d(f0)
    return Take(name, sing(f0).sum(axis=0), f0)


def mean_level(waveform: torch.Tensor) -> float:
    return float(10 * torch.log10((waveform**2).mean()))


class TestAugmentation:
    @pytest.mark.parametrize("semitones", [-3, -1, 2, 3])
    def test_transposition_moves_f0_and_its_tracks(self, sing, semitones):
        f0 = np.repeat([[220.0, 0.0, 330.0]], (60, 20, 70), axis=1)
        ratio = 2 ** (semitones / 12)
        shifted, tracks = augment.shift_by_resampling(sing(f0)[0], F0Tracks(f0, ("a",)), semitones)
        assert len(shifted) == pytest.approx(149 * 256 / ratio, abs=2)
        assert tracks.n_frames == 1 + len(shifted) // 256
        assert tracks.hop == 0.016
        found = single.track(shifted, 16000).f0
        steady = np.zeros(tracks.n_frames, dtype=bool)
        steady[8 : round(52 / ratio)] = True
        steady[round(88 / ratio) : -10] = True
        cents = 1200 * np.log2(found[steady] / tracks.frequencies[0, steady])
        assert np.abs(cents).max() < 25
        assert tracks.frequencies[0, 10] == pytest.approx(220 * ratio, rel=1e-4)
        assert (tracks.frequencies[0, round(63 / ratio) : round(77 / ratio)] == 0).all()

    def test_no_transposition_changes_nothing(self, sing):
        f0 = np.full((1, 40), 220.0, np.float32)
        waveform, tracks = sing(f0)[0], F0Tracks(f0, ("a",))
        assert augment.shift_by_resampling(waveform, tracks, 0) == (waveform, tracks)

    @pytest.mark.parametrize("ratio", [0.85, 1.2])
    def test_formants_move_and_f0_stays(self, ratio):
        """The level of harmonic k changes from envelope(k f0) to envelope(k f0 / ratio)."""
        f0 = torch.full((1, 80), 110.0)
        lsf = lsf_from_logits(1.5 * torch.sin(0.9 * torch.arange(21.0)), 0.03)
        parameters = VoiceParameters(
            f0, torch.full((1, 80), -2.0), lsf.expand(1, 80, 20), torch.full((1, 80, 16), -14.0)
        )
        waveform = synthesize(parameters, generator=torch.Generator().manual_seed(0))[0]
        moved = augment.shift_formants(waveform, ratio)
        assert moved.shape == waveform.shape
        grid, number = StftGrid.of_duration(16000), torch.arange(3, 50)
        peaks = torch.round(number * 110 * 2048 / 16000).long()
        before, after = (power(sound, grid)[peaks, 20:60].mean(dim=-1).log() / 2 for sound in (waveform, moved))
        steady, shifted = (
            glottal_roll_off(frequency) + filter_log_magnitude(lsf, frequency)
            for frequency in (number * 110.0, number * 110.0 / ratio)
        )
        asked, got = (shifted - steady).numpy(), (after - before).numpy()
        assert np.corrcoef(asked, got)[0, 1] > 0.8
        assert np.polyfit(asked, got, 1)[0] == pytest.approx(1, abs=0.4)
        found = single.track(moved.numpy(), 16000).f0[10:-10]
        assert np.abs(1200 * np.log2(found / 110)).max() < 25

    def test_formants_at_ratio_one_stay(self, sing):
        waveform = torch.from_numpy(sing(np.full((2, 60), 220.0)))
        assert (augment.shift_formants(waveform, 1.0) - waveform).abs().max() < 1e-4

    def test_equalisation_is_smooth_and_as_strong_as_asked(self):
        waveform = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 4096)).astype(np.float32))
        filtered = augment.equalise(waveform, np.random.default_rng(1), strength_db=5.0)
        gain = 20 * torch.log10(torch.fft.rfft(filtered).abs() / torch.fft.rfft(waveform).abs())
        assert float(gain.std(dim=0)[[1, -2]].mean()) == pytest.approx(5.0, rel=0.15)
        assert gain.diff(dim=-1).abs().max() < 1.0
        assert (gain[0] - gain[1]).abs().max() > 1.0

    def test_no_equalisation_changes_nothing(self):
        waveform = torch.randn(3, 2, 1001)
        assert (augment.equalise(waveform, np.random.default_rng(0), 0.0) - waveform).abs().max() < 1e-5

    @pytest.mark.parametrize("seed", range(4))
    def test_rooms_keep_the_direct_sound_and_decay(self, seed):
        click = torch.zeros(1, 32000)
        click[0, 100] = 1.0
        wet = augment.reverberate(click, np.random.default_rng(seed))[0]
        assert wet[:100].abs().max() < 1e-5
        assert float(wet[100]) == pytest.approx(1.0, abs=1e-4)
        assert wet[101:131].abs().max() < 1e-4  # the early gap, 2 ms at least
        tail = wet[101:]
        assert -16 < 10 * float(torch.log10((tail**2).sum())) < 1
        assert (tail[:1600] ** 2).sum() > 2 * (tail[16000:17600] ** 2).sum()

    @pytest.mark.parametrize("seed", range(6))
    def test_noise_is_30_to_70_db_below(self, seed):
        mixture = torch.sin(torch.arange(32000) * 0.05).repeat(3, 1) * torch.tensor([[1.0], [0.1], [0.01]])
        noise = augment.add_noise(mixture, np.random.default_rng(seed)) - mixture
        for row in range(3):
            assert -71 < mean_level(noise[row]) - mean_level(mixture[row]) < -29

    def test_noise_is_at_the_level_asked_for_and_differs_between_mixtures(self):
        mixture = torch.sin(torch.arange(16001) * 0.05).repeat(40, 1)
        for seed in range(4):
            noise = augment.add_noise(mixture, np.random.default_rng(seed), (-25.0, -5.0)) - mixture
            levels = torch.tensor([mean_level(row) for row in noise]) - mean_level(mixture)
            assert -25.1 < levels.min() < -20
            assert -10 < levels.max() < -4.9
        assert augment.add_noise(torch.zeros(1, 999), np.random.default_rng(0)).abs().max() == 0

    @pytest.mark.parametrize("samples", [16000, 15999])
    def test_a_band_limit_takes_what_is_above_and_leaves_what_is_below(self, samples):
        time = torch.arange(samples) / 16000
        low, high = (torch.sin(2 * torch.pi * f * time) for f in (2990.0, 3010.0))
        inside = slice(1600, 14400)  # a tone that breaks off has energy at all frequencies
        kept = augment.limit_band(torch.stack([low, high, low + high]), 3000)
        assert kept.shape == (3, samples)
        assert (kept[0] - low)[inside].abs().max() < 0.05
        assert kept[1][inside].abs().max() < 0.05
        torch.testing.assert_close(kept[2], kept[0] + kept[1], atol=1e-5, rtol=0)


class TestLoss:
    @pytest.fixture
    def parameters(self) -> VoiceParameters:
        f0 = torch.from_numpy(np.stack([melody(330.0, 100, 1), melody(150.0, 100, 2)]))[None]
        lsf = lsf_from_logits(0.5 * torch.sin(torch.arange(42.0).reshape(2, 1, 21)), 0.05)
        return VoiceParameters(
            f0, torch.full((1, 2, 100), -2.0), lsf.expand(1, 2, 100, 20), torch.full((1, 2, 100, 16), -12.0)
        )

    @pytest.fixture
    def mixture(self, parameters) -> torch.Tensor:
        return synthesize(parameters, samples=100 * 256 - 1, generator=torch.Generator().manual_seed(0)).sum(dim=1)

    @pytest.mark.parametrize(
        "change",
        [
            {"log_gain": lambda x: x + 0.7},
            {"log_gain": lambda x: x - 0.7},
            {"log_gain": lambda x: x.flip(1) + torch.tensor([[1.0], [-1.0]])},
            {"lsf": lambda x: x.flip(1)},
            {"lsf": lambda x: torch.arange(1, 21) * torch.pi / 21 + 0 * x},
            {"log_noise": lambda x: x + 2.0},
            {"log_noise": lambda x: x - 4.0},
            {"f0": lambda x: 1.03 * x},
            {"f0": lambda x: x.roll(20, -1)},
        ],
    )
    def test_true_parameters_lose_least(self, parameters, mixture, change):
        values = {name: getattr(parameters, name) for name in ("f0", "log_gain", "lsf", "log_noise")}
        changed = VoiceParameters(**{**values, **{name: edit(values[name]) for name, edit in change.items()}})
        assert mixture_loss(parameters, mixture) < mixture_loss(changed, mixture) - 0.01

    def test_it_leads_back_to_the_true_gain(self, parameters, mixture):
        gain = parameters.log_gain.clone().add_(1.0).requires_grad_()
        changed = VoiceParameters(parameters.f0, gain, parameters.lsf, parameters.log_noise)
        mixture_loss(changed, mixture).backward()
        compared = (parameters.f0 > 0) & (torch.arange(100) % 3 == 0)
        assert (gain.grad[compared] > 0).float().mean() > 0.9

    def test_distance_is_zero_only_for_equals_and_blind_to_loudness(self):
        target = torch.rand(2, 50, 30, generator=torch.Generator().manual_seed(0)) + 0.1
        assert spectral_distance(target, target) < 1e-5
        other = target.flip(-1)
        distance = spectral_distance(other, target)
        assert distance > 0.1
        assert float(spectral_distance(1e-3 * other, 1e-3 * target)) == pytest.approx(float(distance), rel=1e-3)

    def test_silence_has_a_finite_loss(self, parameters):
        assert mixture_loss(parameters, torch.zeros(1, 100 * 256 - 1)).isfinite()

    def test_grids_share_the_hop(self):
        assert [(grid.win_length, grid.hop_length) for grid in loss_grids()] == [(2048, 256), (1024, 256), (512, 256)]


FRAMES = 60


@pytest.fixture(scope="module")
def piece(sing) -> dict[str, list[Take]]:
    """Two singers of each part, in time with one another."""
    return {
        part: [take(melody(f0, 160, seed), sing, f"{part}_{seed}") for seed in (1, 2)] for part, f0 in PARTS.items()
    }


@pytest.fixture(scope="module")
def singers(piece) -> SingerSource:
    return SingerSource([piece], frames=FRAMES)


class TestSources:
    def test_excerpts_and_parts(self):
        whole = Take("x", np.arange(40 * 256 + 9, dtype=np.float32), np.arange(1, 42, dtype=np.float32)[None])
        assert whole.n_frames == 40
        samples, f0 = whole.excerpt(3, 5)
        assert (samples[0], len(samples)) == (3 * 256, 5 * 256)
        assert f0.tolist() == [[4, 5, 6, 7, 8, 9]]
        end = whole.part(0.75, 1)
        assert (end.waveform[0], end.f0[0, 0], end.n_frames) == (30 * 256, 31, 10)
        assert end.excerpt(5, 5)[1].tolist() == [[36, 37, 38, 39, 40, 0]]

    @pytest.mark.parametrize("share", [0.1, 0.123, 0.3, 0.5])
    def test_held_out_parts_never_overlap_training_parts(self, share):
        parts = {"soprano": [Take("x", np.arange(777 * 256, dtype=np.float32), np.ones((1, 777), np.float32))]}
        training, held = (group["soprano"][0] for group in split_singers(parts, share))
        assert training.waveform[-1] < held.waveform[0]
        assert len(training.waveform) + len(held.waveform) == 777 * 256
        assert held.n_frames == pytest.approx(777 * share, abs=1)

    @pytest.mark.parametrize("share", [0.0, -0.1, 0.6, 1.0, float("nan")])
    def test_held_out_shares_out_of_range(self, share, piece):
        with pytest.raises(OptionError, match="held-out share"):
            split_singers(piece, share)

    def test_seeds_reproduce_batches(self, singers):
        one, other = (
            [singers.draw(rng, 2) for _ in range(3)] for rng in (np.random.default_rng(5), np.random.default_rng(5))
        )
        for first, second in zip(one, other, strict=True):
            assert torch.equal(first.mixture, second.mixture)
            assert torch.equal(first.f0, second.f0)
        assert not torch.equal(one[0].mixture, singers.draw(np.random.default_rng(6), 2).mixture)

    def test_batches_of_singers(self, singers):
        rng, numbers = np.random.default_rng(0), set()
        for _ in range(25):
            mixture, f0, stems = singers.draw(rng, 3)
            numbers.add(f0.shape[1])
            assert mixture.shape == (3, FRAMES * 256)
            assert f0.shape[::2] == (3, FRAMES + 1)
            assert (mixture.dtype, f0.dtype) == (torch.float32, torch.float32)
            assert mixture.isfinite().all()
            assert 0 < mixture.abs().max() <= 1.0001
            # The stems are those of this mixture, room and level and all; what is left is noise, from -30 dB down.
            assert (mixture - stems.sum(dim=1)).std() < 0.05 * mixture.std()
            voiced = f0[f0 > 0]
            assert 110 * 2 ** (-7.3 / 12) < voiced.min() < voiced.max() < 520 * 2 ** (7.3 / 12)
            assert ((f0 > 0).any(dim=1).float().mean(dim=-1) > 0.15).all()
        assert numbers == {2, 3, 4, 5, 6}

    def test_a_mixture_is_sung_at_its_f0(self, piece):
        """Mixtures and f0 stay together through cutting and transposing: most power lies at harmonics."""
        source = SingerSource([piece], voices=(2, 2), frames=FRAMES, augmented=False)
        grid = StftGrid.of_duration(16000)
        rng = np.random.default_rng(0)
        for _ in range(5):
            mixture, f0, _ = source.draw(rng, 1)
            level = power(mixture, grid)[0, :400, 5:-5]  # below 3.1 kHz
            bins = grid.frequencies()[:400, None]
            nearest = torch.full_like(level, torch.inf)
            for voice in f0[0, :, 5 : FRAMES - 4]:
                for around in (voice.roll(-2), voice, voice.roll(2)):
                    k = torch.round(bins / around.clamp_min(1)).clamp_min(1)
                    nearest = torch.minimum(nearest, torch.where(around > 0, (bins - k * around).abs(), torch.inf))
            assert level[nearest < 30].sum() / level.sum() > 0.9

    def test_unaugmented_ensembles_are_sums_of_takes(self, piece):
        source = SingerSource([piece], voices=(4, 4), frames=159, augmented=False)
        mixture, f0, stems = source.draw(np.random.default_rng(0), 1)
        torch.testing.assert_close(stems.sum(dim=1), mixture)
        takes = [take for group in piece.values() for take in group]
        rows = [next(t for t in takes if np.array_equal(t.f0[0], row)) for row in f0[0].numpy()]
        total = sum(t.waveform for t in rows)
        ratio = mixture[0].numpy() / np.where(np.abs(total) > 1e-3, total, np.nan)
        np.testing.assert_allclose(ratio[~np.isnan(ratio)], np.nanmedian(ratio), rtol=1e-3)

    def test_ensembles_that_sing_together_have_each_part_once(self, singers):
        for seed in range(10):
            picks = singers._together(np.random.default_rng(seed), 4)
            assert {pick.name.split("_")[0] for pick, _ in picks} == set(PARTS)
            assert len({first for _, first in picks}) == 1

    def test_recordings_that_are_too_short(self, piece):
        with pytest.raises(AudioError, match=r"lasts 2\.7 s"):
            SingerSource([piece], frames=170)
        with pytest.raises(AudioError, match="lasts"):
            MixtureSource([group[0] for group in piece.values()], frames=170)

    def test_mixtures_of_several_sizes_make_batches_of_one(self, sing):
        duet = take(np.stack([melody(400, 100, 1), melody(200, 100, 2)]), sing)
        trio = take(np.stack([melody(400, 100, 3), melody(250, 100, 4), melody(120, 100, 5)]), sing)
        source = MixtureSource([duet, trio], frames=FRAMES)
        rng, numbers = np.random.default_rng(0), set()
        for _ in range(12):
            mixture, f0, stems = source.draw(rng, 2)
            assert stems is None
            numbers.add(f0.shape[1])
            assert (mixture.shape, f0.shape[2]) == ((2, FRAMES * 256), FRAMES + 1)
        assert numbers == {2, 3}

    def test_mixed_sources_keep_their_share(self, singers, sing):
        solo = MixtureSource([take(melody(300, 100), sing)], frames=20)
        rng = np.random.default_rng(0)
        small = SingerSource([{"soprano": [take(melody(300, 100), sing)]}], (2, 2), 20, augmented=False)
        sizes = [MixedSource(solo, small, 0.25).draw(rng, 1).f0.shape[1] for _ in range(200)]
        assert sizes.count(1) / 200 == pytest.approx(0.25, abs=0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sing) -> Path:
    """singers/PART_N.wav, 10 s each, two singers; choir/NAME.wav, 6 s; guides/NAME/PART.wav."""
    root = tmp_path_factory.mktemp("folders")
    for part, f0 in PARTS.items():
        for singer in (1, 2):
            audio.write(root / "singers" / f"{part}_{singer}.wav", sing(melody(f0, 600, singer)[None])[0] / 4, 16000)
    for name in ("one", "two"):
        stems = sing(np.stack([melody(f0, 380, len(name)) for f0 in PARTS.values()])) / 8
        audio.write(root / "choir" / f"{name}.wav", stems.sum(axis=0), 16000)
        for part, stem in zip(PARTS, stems, strict=True):
            audio.write(root / "guides" / name / f"{part}.wav", stem, 16000)
    return root


class TestFolders:
    def test_singers_by_part_high_to_low(self, folders):
        parts = load_singers(folders / "singers", ["2"])
        assert {part: [take.name for take in takes] for part, takes in parts.items()} == {
            part: [f"{part}_2"] for part in PARTS
        }
        assert list(parts) == ["soprano", "alto", "tenor", "bass"]
        expected = melody(330.0, 600, 2)
        found = parts["alto"][0].f0[0, :600]
        both = (expected > 0) & (found > 0)
        assert both.mean() > 0.7
        assert np.median(np.abs(1200 * np.log2(found[both] / expected[both]))) < 15

    @pytest.fixture
    def loaded(self, piece, monkeypatch) -> str:
        """A folder whose singers need no tracking."""
        long = {
            part: [Take(t.name, np.tile(t.waveform, 4), np.tile(t.f0, 4)) for t in ts] for part, ts in piece.items()
        }
        monkeypatch.setattr(sources, "load_singers", lambda folder, singers: long)
        return "nino"

    @pytest.mark.parametrize("names", [["9"], ["1", "9"]])
    def test_singers_that_are_not_there(self, folders, names):
        with pytest.raises(AudioError, match="of singer 9"):
            load_singers(folders / "singers", names)

    @pytest.mark.parametrize(
        ("text", "folder", "names"),
        [
            ("FOLDER:1,2", "FOLDER", ["1", "2"]),
            ("FOLDER: 1 , 2 ", "FOLDER", ["1", "2"]),
            ("a/b:3", "a/b", ["3"]),
            ("a/b", "a/b", None),
            ("a/b:", "a/b", None),
            ("a/b:1,", "a/b", ["1"]),
            ("C:/music/nino", "C:/music/nino", None),
            (r"C:\music\nino", r"C:\music\nino", None),
            (r"C:\music\nino:1", r"C:\music\nino", ["1"]),
        ],
    )
    def test_folders_with_names(self, monkeypatch, text, folder, names):
        seen = []
        monkeypatch.setattr(sources, "singer_sources", lambda folders, held_out, **_: seen.extend(folders))
        training_sources(None, [text], None, None, 0.1)
        assert seen == [(Path(folder), names)]

    def test_validation_hears_quartets_as_long_as_the_held_out_part_allows(self, loaded):
        training, validation = singer_sources([(loaded, ["1"])], held_out=0.1)
        assert (training.frames, training.augmented) == (250, True)
        mixture, f0, _ = validation.draw(np.random.default_rng(0), 2)
        assert (validation.frames, validation.augmented, f0.shape[1]) == (64, False, 4)
        assert mixture.shape == (2, 64 * 256)

    def test_next_to_nothing_held_out_is_refused(self, loaded):
        with pytest.raises(AudioError, match="held out"):
            singer_sources([(loaded, None)], 0.001)

    def test_mixtures_with_guides(self, folders):
        training, validation = mixture_sources(folders / "choir", folders / "guides", "SB", 0.2)
        found = training.takes[0].f0
        assert len(training.takes) == 2
        assert found.shape == (2, 303)
        for row, f0 in zip(found, (PARTS["soprano"], PARTS["bass"]), strict=True):
            assert np.median(row[row > 0]) == pytest.approx(f0, rel=0.3)
        assert validation.frames == 76
        assert validation.draw(np.random.default_rng(0), 2).f0.shape == (2, 2, 77)

    def test_mixtures_without_guides(self, folders):
        training, _ = mixture_sources(folders / "choir", None, "SA", 0.2)
        assert training.draw(np.random.default_rng(0), 1).f0.shape == (1, 2, 251)

    def test_both_kinds_together(self, folders, loaded):
        source, validation = training_sources(folders / "choir", [f"{loaded}:1"], None, None, 0.2)
        assert isinstance(source, MixedSource)
        assert isinstance(source.first, MixtureSource)
        assert isinstance(validation, SingerSource)

    @pytest.mark.parametrize(
        ("mixtures", "guides", "error"),
        [("nowhere", None, AudioError), ("choir", "nowhere", AudioError), ("choir", "choir", AudioError)],
    )
    def test_folders_that_do_not_serve(self, folders, mixtures, guides, error):
        with pytest.raises(error):
            mixture_sources(folders / mixtures, guides and folders / guides, None, 0.2)


TINY = EstimatorConfig(channels=16, dilations=(1, 2), kernel_size=3)


def trainer(source: SingerSource, folder: Path, tiny: EstimatorConfig = TINY, **settings: object) -> Trainer:
    base = {"steps": 8, "batch_size": 2, "validate_every": 4, "validation_batches": 1, "learning_rate": 3e-3}
    config = TrainingConfig(**{**base, **settings})
    torch.manual_seed(config.seed)
    return Trainer(config, Estimator(tiny), estimator_loss, source, source, folder)


def interrupted(run: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until after the first validation."""
    validate = run._validate

    def stop() -> str:
        validate()
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_validate", stop)
    with pytest.raises(KeyboardInterrupt):
        run.run(quiet=True)


def assert_equal_runs(one: Trainer, other: Trainer) -> None:
    """Weights, their means and what was kept are the same to the bit."""
    assert one.progress.step == other.progress.step
    assert one.progress.best_loss == other.progress.best_loss
    states = [
        (run.network.state_dict(), run.averaged.state_dict(), weights.load(run.folder / "best.safetensors").tensors)
        for run in (one, other)
    ]
    for mine, theirs in zip(*states, strict=True):
        assert list(mine) == list(theirs)
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), name


@pytest.fixture(scope="module")
def duets(piece) -> SingerSource:
    return SingerSource([piece], voices=(2, 2), frames=40, augmented=False)


class TestTrainer:
    def test_training_lowers_the_validation_loss(self, duets, tmp_path):
        run = trainer(duets, tmp_path, steps=30, validate_every=10, average=0.9)
        with torch.no_grad():
            before = float(np.mean([float(run.loss(run.averaged, batch)) for batch in run.validation_set]))
        lines: list[str] = []
        progress = run.run(report=lines.append, quiet=True)
        assert progress.step == 30
        assert progress.best_loss < before - 0.1
        assert len(lines) == 3
        assert f"{progress.best_loss:.4f} (best)" in lines[progress.best_step // 10 - 1]
        network = load_estimator(str(tmp_path / "best.safetensors"))
        assert network.config == TINY
        with torch.no_grad():
            kept = float(np.mean([float(run.loss(network, batch)) for batch in run.validation_set]))
        assert kept == pytest.approx(progress.best_loss, abs=1e-5)

    def test_the_same_seed_gives_the_same_weights(self, duets, tmp_path):
        runs = [trainer(duets, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
        for run in runs:
            run.run(quiet=True)
        first, second, third = (run.averaged.state_dict() for run in runs)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not all(torch.equal(first[name], third[name]) for name in first)

    def test_a_resumed_run_is_the_uninterrupted_run(self, duets, tmp_path, monkeypatch):
        whole = trainer(duets, tmp_path / "whole")
        whole.run(quiet=True)
        interrupted(trainer(duets, tmp_path / "parts"), monkeypatch)
        resumed = trainer(duets, tmp_path / "parts")
        resumed.resume()
        assert resumed.progress.step == 4
        assert resumed.run(quiet=True).step == 8
        assert_equal_runs(resumed, whole)

    @pytest.mark.parametrize("settings", [{"seed": 1}, {"steps": 9}, {"batch_size": 1}])
    def test_other_settings_do_not_resume(self, duets, tmp_path, settings):
        trainer(duets, tmp_path).save()
        with pytest.raises(WeightsError, match=r"holds a run with \w+ \d+; expected the settings of this command"):
            trainer(duets, tmp_path, **settings).resume()

    def test_another_network_does_not_resume(self, duets, tmp_path):
        trainer(duets, tmp_path).save()
        other = trainer(duets, tmp_path, EstimatorConfig(channels=16, dilations=(1, 2), kernel_size=5))
        with pytest.raises(WeightsError, match="holds a run of another network"):
            other.resume()

    def test_nothing_to_resume(self, duets, tmp_path):
        with pytest.raises(WeightsError, match="no such file"):
            trainer(duets, tmp_path).resume()

    def test_training_stops_when_validation_stalls(self, duets, tmp_path, monkeypatch):
        run = trainer(duets, tmp_path, steps=50, validate_every=1, patience=3)
        losses = iter([3.0, 2.0, 2.5, 2.1, 2.0, 1.0])
        monkeypatch.setattr(run, "_step", lambda batch: 0.0)
        monkeypatch.setattr(run, "loss", lambda network, batch: torch.tensor(next(losses)))
        lines: list[str] = []
        progress = run.run(report=lines.append, quiet=True)
        assert (progress.step, progress.best_step, progress.best_loss) == (5, 2, 2.0)
        assert "stopped" in lines[-1]

    def test_a_loss_that_explodes_leaves_the_weights(self, duets, tmp_path, monkeypatch):
        run = trainer(duets, tmp_path)
        before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
        loss = run.loss
        monkeypatch.setattr(run, "loss", lambda network, batch: loss(network, batch) * float("nan"))
        run._step(duets.draw(np.random.default_rng(0), 2))
        assert all(torch.equal(tensor, before[name]) for name, tensor in run.network.state_dict().items())

    def test_the_learning_rate_warms_up_and_ends_at_nothing(self, duets, tmp_path):
        run = trainer(duets, tmp_path, steps=1000)
        rates = [run._rate(step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.01)
        assert 0.9 < max(rates) <= 1
        assert 80 <= int(np.argmax(rates)) <= 110
        assert rates[-1] < 1e-4

    @pytest.mark.parametrize(
        "settings",
        [
            {"steps": 0},
            {"batch_size": 0},
            {"patience": -1},
            {"learning_rate": -1.0},
            {"learning_rate": 0},
            {"seed": -1},
        ],
    )
    def test_settings_out_of_range(self, settings):
        with pytest.raises(OptionError, match=r"must be|expected"):
            TrainingConfig(**settings)

    def test_progress_starts_at_nothing(self):
        assert Progress() == Progress(0, float("inf"), 0, 0.0)


TINY_TRACKER = TrackerConfig(channels=(8, 8, 8, 8), hidden=8, summary=4, features=4)


@pytest.fixture(scope="module")
def ensembles(piece) -> EnsembleSource:
    return EnsembleSource([piece], frames=40, augmented=False)


class TestTrainerOfTrackers:
    """A network with buffers that change in training (BatchNorm), learning with targets."""

    @staticmethod
    def trainer(source: EnsembleSource, folder: Path, **settings: object) -> Trainer:
        base = {"steps": 6, "batch_size": 2, "validate_every": 3, "validation_batches": 1, "learning_rate": 1e-2}
        config = TrainingConfig(**{**base, **settings})
        torch.manual_seed(config.seed)
        return Trainer(config, Tracker(TINY_TRACKER), TrackerLoss(half=False), source, source, folder)

    def test_a_resumed_run_is_the_uninterrupted_run(self, ensembles, tmp_path, monkeypatch):
        whole = self.trainer(ensembles, tmp_path / "whole")
        whole.run(quiet=True)
        interrupted(self.trainer(ensembles, tmp_path / "parts"), monkeypatch)
        resumed = self.trainer(ensembles, tmp_path / "parts")
        resumed.resume()
        assert resumed.progress.step == 3
        assert resumed.run(quiet=True).step == 6
        assert_equal_runs(resumed, whole)

    def test_training_lowers_the_validation_loss_and_keeps_a_tracker(self, ensembles, tmp_path):
        run = self.trainer(ensembles, tmp_path, steps=20, validate_every=10, average=0.8)
        batch = run.validation_set[0]
        with torch.no_grad():
            before = float(run.loss(run.averaged.eval(), batch))
        progress = run.run(quiet=True)
        assert progress.best_loss < before - 0.2
        kept = load_tracker(str(tmp_path / "best.safetensors"))
        assert kept.config == TINY_TRACKER
        with torch.no_grad():
            assert float(run.loss(kept, batch)) == pytest.approx(progress.best_loss, abs=1e-4)

    def test_the_mean_of_the_weights_has_a_mean_of_the_buffers(self, ensembles, tmp_path):
        """The first step has a decay of 0.1, the second of 2 / 11; counts cannot be averaged."""
        run = self.trainer(ensembles, tmp_path)
        expected = {name: tensor.clone() for name, tensor in run.averaged.state_dict().items()}
        moved = {name for name in expected if "running" in name}
        assert moved
        for decay in (1 / 10, 2 / 11):
            run._step(ensembles.draw(run.rng, 2))
            run.progress.step += 1
            now = run.network.state_dict()
            for name, mean in expected.items():
                counts = name.endswith("num_batches_tracked")
                expected[name] = now[name].clone() if counts else decay * mean + (1 - decay) * now[name]
        for name, tensor in run.averaged.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
            assert name not in moved or not torch.equal(tensor, now[name])
        assert int(run.averaged.state_dict()["stem.1.num_batches_tracked"]) == 2

    def test_validation_moves_no_buffers(self, ensembles, tmp_path):
        run = self.trainer(ensembles, tmp_path)
        before = {name: tensor.clone() for name, tensor in run.averaged.state_dict().items()}
        first, second = run._validate(), run._validate()
        assert first.split(" loss ")[1][:6] == second.split(" loss ")[1][:6]
        assert all(torch.equal(tensor, before[name]) for name, tensor in run.averaged.state_dict().items())


def test_guides_of_another_length_are_refused(tmp_path):
    audio.write(tmp_path / "choir" / "one.wav", np.zeros(16000 * 6), 16000)
    audio.write(tmp_path / "guides" / "one" / "soprano.wav", np.zeros(16000 * 8), 16000)
    with pytest.raises(F0Error, match=r"one: f0s last 8\.02 s"):
        mixture_sources(tmp_path / "choir", tmp_path / "guides", None, 0.2)
