import numpy as np
import pytest

from vocalsep.errors import VoicesError
from vocalsep.voices import PARTS, VOICE_FMAX, VOICE_FMIN, Voice, parse_voices, to_voice_name


@pytest.mark.parametrize(
    ("voices", "expected"),
    [
        ("SATB", ["soprano", "alto", "tenor", "bass"]),
        (" satb ", ["soprano", "alto", "tenor", "bass"]),
        ("SMATRB", ["soprano", "mezzo", "alto", "tenor", "baritone", "bass"]),
        ("SSA", ["soprano1", "soprano2", "alto"]),
        ("TTBB", ["tenor1", "tenor2", "bass1", "bass2"]),
        ("STS", ["soprano1", "tenor", "soprano2"]),
        ("B", ["bass"]),
        ("bass", ["bass"]),
        (3, ["voice1", "voice2", "voice3"]),
        (np.int64(2), ["voice1", "voice2"]),
        (" 2 ", ["voice1", "voice2"]),
        ("soprano, alto", ["soprano", "alto"]),
        ("Soprano,ALTO,", ["soprano", "alto"]),
        ("lead, bass", ["lead", "bass"]),
        (["lead", "soprano", "Soprano"], ["lead", "soprano1", "soprano2"]),
        (("first tenor", "second tenor"), ["first tenor", "second tenor"]),
        ([Voice("x"), "y=100-200"], ["x", "y"]),
        ("Sop., Alt.", ["Sop.", "Alt."]),
        ("合唱, Ténor", ["合唱", "Ténor"]),
    ],
)
def test_names(voices, expected):
    assert [voice.name for voice in parse_voices(voices)] == expected


def test_ranges():
    assert parse_voices("SATRB") == tuple(PARTS[letter] for letter in "SATRB")
    assert parse_voices("TT") == (Voice("tenor1", 110.0, 500.0), Voice("tenor2", 110.0, 500.0))
    assert parse_voices("2") == (Voice("voice1", VOICE_FMIN, VOICE_FMAX), Voice("voice2", VOICE_FMIN, VOICE_FMAX))
    assert parse_voices("lead=200-900, bass") == (Voice("lead", 200.0, 900.0), PARTS["B"])
    assert parse_voices("alto = 150.5 \u2013 600") == (Voice("alto", 150.5, 600.0),)
    assert parse_voices([Voice("alto", 100.0, 300.0), "alto"]) == (
        Voice("alto1", 100.0, 300.0),
        Voice("alto2", 155.0, 700.0),
    )
    assert parse_voices("alto1, alto 2") == (Voice("alto1", 155.0, 700.0), Voice("alto 2", 155.0, 700.0))


@pytest.mark.parametrize("voices", ["S,A", ["S", "A"], "soprano, alto"])
def test_letters_and_names_in_a_list_are_parts(voices):
    assert parse_voices(voices) == parse_voices("SA")


@pytest.mark.parametrize(
    ("voices", "keyword"),
    [
        ("", "letters"),
        ("  ", "letters"),
        (",", "1 to 16"),
        ([], "1 to 16"),
        ("SXTB", "mezzo"),
        ("lead", "letters"),
        ("3.5", "letters"),
        ("9" * 5000, "letters"),
        (0, "1 to 16"),
        (-1, "1 to 16"),
        ("17", "1 to 16"),
        (10**30, "1 to 16"),
        ("S" * 17, "1 to 16"),
        (None, "None"),
        (2.0, "2.0"),
        ({"soprano": 1}, "letters"),
        ([1, 2], "name"),
        ("Lead, lead", "more than once"),
        ("soprano, soprano, soprano1", "more than once"),
        (["\xe9", "e\u0301"], "more than once"),  # the same file on systems that decompose letters
        ("lead=", "two frequencies"),
        ("lead=200", "two frequencies"),
        ("lead=1..2-300", "two frequencies"),
        ("lead=0-200", "range"),
        ("lead=900-200", "range"),
        ("a=1-" + "9" * 400, "range"),
        ("=200-900", "name"),
        (["a\nb"], "name"),
        (["x" * 100_000], "name"),
    ],
)
def test_errors(voices, keyword):
    with pytest.raises(VoicesError, match=keyword) as caught:
        parse_voices(voices)
    assert caught.value.parameter == "voices"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", ".hidden", " alto", "alto ", "a\nb", "a\0b"),
        *("\u202eotla", "\udc80", "x" * 201, "é" * 101),
        *("a/b", "a\\b", "../alto", "C:alto", "a*", "a?", 'a"b', "a<b", "a|b"),
        *("CON", "Nul", "COM1", "com²", "NUL.alto", "con .x", "CONIN$"),
    ],
)
def test_names_that_files_cannot_have(name):
    with pytest.raises(VoicesError):
        Voice(name)
    assert to_voice_name(name, "voice1") == "voice1" or Voice(to_voice_name(name, "voice1")).name != name


@pytest.mark.parametrize("name", ["console", "com", "COM10", "nullo", "Lead 1", "x" * 200, "Alt..", "a-b_(c)", "合唱"])
def test_names_that_files_can_have(name, tmp_path):
    (tmp_path / f"{Voice(name).name}.wav").touch()
    assert to_voice_name(name, "voice1") == name


@pytest.mark.parametrize("span", [(0, 100), (-5, 100), (200, 100), (100, 100), (float("nan"), 100), (50, float("inf"))])
def test_invalid_ranges(span):
    with pytest.raises(VoicesError):
        Voice("lead", *span)
