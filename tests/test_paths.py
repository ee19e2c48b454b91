from pathlib import Path

import pytest

from vocalsep.errors import OptionError
from vocalsep.paths import folded, safe_name, stem_paths

TEMPLATE = "{track}/{stem}.{ext}"


def test_folded_names_are_equal_where_a_file_system_treats_them_as_equal():
    assert folded("\xc9tude") == folded("e\u0301TUDE")
    assert folded("a") != folded("b")


@pytest.mark.parametrize(
    "name",
    ["choir", "Agnus: Dei?", "nul.take1", "...", "caf\udce9", "a" * 300, "合" * 300, ".hidden", "a/b\\c", "\x07", ""],
)
def test_safe_names_can_be_files(name, tmp_path):
    safe = safe_name(name)
    (tmp_path / safe).touch()
    assert [path.name for path in tmp_path.iterdir()] == [safe]
    assert safe_name(safe) == safe
    assert len(safe.encode()) <= 249


def test_long_names_that_differ_at_the_end_stay_different():
    assert safe_name("a" * 300 + "1", 50) != safe_name("a" * 300 + "2", 50)


@pytest.mark.parametrize(
    "template", [TEMPLATE, "{track}_{stem}.{ext}", "stems/{stem}/{track}.{ext}", "{track}-{track}/{stem}.wav"]
)
def test_paths_of_a_long_track_can_be_written(template, tmp_path):
    paths = stem_paths("x" * 300, ["alto", "bass" * 10], filename=template, audio_format="wav")
    assert len(set(paths.values())) == 2
    for path in paths.values():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()


def test_tracks_that_differ_have_different_places():
    places = [stem_paths(name, ["alto"], filename=TEMPLATE, audio_format="wav") for name in ("a", "b", "a")]
    assert places[0] == places[2] != places[1]


@pytest.mark.parametrize(
    "template",
    [
        *("{track}/{voice}.{ext}", "{}.{ext}", "{track.x}/{stem}.{ext}", "{track!r}/{stem}.{ext}", "{stem}.{ext}{", ""),
        *("/{track}/{stem}.{ext}", "../{track}/{stem}.{ext}", "{track}/{stem}.flac", "{track}/{stem}", "{track}.{ext}"),
        "x" * 250 + "{track}/{stem}.{ext}",
    ],
)
def test_templates_that_cannot_be_used(template):
    with pytest.raises(OptionError) as caught:
        stem_paths("choir", ["alto", "bass"], filename=template, audio_format="wav")
    assert caught.value.parameter == "filename"


def test_templates_may_end_in_the_suffix_itself():
    paths = stem_paths("choir", ["alto"], filename="{track} {stem}.WAV", audio_format="wav")
    assert Path(paths["alto"]) == Path("choir alto.WAV")
