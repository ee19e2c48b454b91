import numpy as np
import pytest

from vocalsep.errors import VoicesError
from vocalsep.voices import PARTS, VOICE_FMAX, VOICE_FMIN, Voice, parse_voices, to_voice_name


def names(voices) -> list[str]:
    return [voice.name for voice in parse_voices(voices)]


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
    assert names(voices) == expected


def test_ranges():
    assert parse_voices("SATRB") == tuple(PARTS[letter] for letter in "SATRB")
    assert parse_voices("TT") == (Voice("tenor1", 110.0, 500.0), Voice("tenor2", 110.0, 500.0))
    assert parse_voices("2") == (Voice("voice1", VOICE_FMIN, VOICE_FMAX), Voice("voice2", VOICE_FMIN, VOICE_FMAX))
    assert parse_voices("lead=200-900, bass") == (Voice("lead", 200.0, 900.0), PARTS["B"])
    assert parse_voices("alto = 150.5 \u2013 600") == (Voice("alto", 150.5, 600.0),)
    own = Voice("alto", 100.0, 300.0)
    assert parse_voices([own, "alto"]) == (Voice("alto1", 100.0, 300.0), Voice("alto2", 155.0, 700.0))


@pytest.mark.parametrize(
    ("voices", "message"),
    [
        ("", "voices is ''; expected part letters"),
        ("  ", "expected part letters"),
        (",", "0 voices; expected 1 to 16"),
        ([], "0 voices; expected 1 to 16"),
        ("SXTB", "'SXTB'; expected part letters out of SMATRB"),
        ("lead", "expected part letters"),
        ("3.5", "expected part letters"),
        (0, "number of voices is 0; expected 1 to 16"),
        ("17", "number of voices is 17; expected 1 to 16"),
        (-1, "number of voices is -1"),
        ("9" * 5000, "expected part letters"),
        ("S" * 17, "17 voices; expected 1 to 16"),
        (True, "voices is True"),
        (None, "voices is None"),
        (2.0, r"voices is 2\.0"),
        (b"SATB", "voices is b'SATB'"),
        ({"soprano": 1}, "expected part letters"),
        ([1, 2], "a voice is 1; expected a name or a Voice"),
        ("lead, lead", "'lead' is named more than once"),
        ("Lead, lead", "'lead' is named more than once"),
        ("soprano, soprano, soprano1", "'soprano1' is named more than once"),
        ("lead=", "range of 'lead' is ''; expected two frequencies"),
        ("lead=200", "range of 'lead' is '200'"),
        ("lead=0-200", "range of 'lead' is '0-200'"),
        ("lead=1..2-300", "range of 'lead'"),
        ("lead=900-200", "range of lead is 900.0-200.0 Hz; expected a lower and a higher"),
        ("=200-900", "voice name is ''"),
        pytest.param(10**5000, "number of voices is (<int>|10000+[.]+); expected 1 to 16", id="5000 digits"),
        (np.zeros((9, 9)), r"voices is array\(\[.*\.\.\.; expected part letters"),
        (["a\nb"], r"voice name is 'a\\nb'"),
        (["x" * 100_000], r"voice name is 'x{76}\.\.\.; expected"),
        (["a"] * 100_000, "100000 voices; expected 1 to 16"),
        (["\xe9", "e\u0301"], "is named more than once"),  # one file where letters are decomposed
        ("a=1-" + "9" * 400, "range of a is 1.0-inf Hz"),
    ],
)
def test_errors(voices, message):
    with pytest.raises(VoicesError, match=message) as caught:
        parse_voices(voices)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


NASTY = [
    *("", " ", ".", "..", "...", ".hidden", " alto", "alto ", "\t"),
    *("a/b", "a\\b", "../alto", "/etc/passwd", "C:alto", "a:b", "a*", "a?", 'a"b', "a<b", "a>b", "a|b"),
    *("a\nb", "a\0b", "a\x7f", "\u202eotla", "\udc80", "x" * 201, "é" * 101),
    *("CON", "con", "Nul", "PRN", "aux", "COM1", "lpt9", "com²", "NUL.alto", "con .x", "CONIN$"),
]


@pytest.mark.parametrize("name", NASTY)
def test_names_that_no_file_can_have(name):
    with pytest.raises(VoicesError, match="expected a name that can be part of a file name"):
        Voice(name)
    assert to_voice_name(name, "voice1") == "voice1" or Voice(to_voice_name(name, "voice1")).name != name


@pytest.mark.parametrize("name", ["console", "com", "COM10", "nullo", "Lead 1", "x" * 200, "Alt..", "a-b_(c)"])
def test_names_that_files_can_have(name, tmp_path):
    (tmp_path / f"{Voice(name).name}.wav").touch()
    assert to_voice_name(name, "voice1") == name


@pytest.mark.parametrize("span", [(0, 100), (-5, 100), (200, 100), (100, 100), (float("nan"), 100), (50, float("inf"))])
def test_range_of_voice(span):
    with pytest.raises(VoicesError, match="range of lead is"):
        Voice("lead", *span)


@pytest.mark.parametrize(
    "arguments", [(5,), (None,), ("lead", "100", 200), ("lead", np.ones(3), 9), ("lead", 1, 10**400)]
)
def test_voice_of_wrong_types(arguments):
    with pytest.raises(VoicesError):
        Voice(*arguments)


@pytest.mark.parametrize("voices", ["S,A", ["S", "A"], "soprano, alto"])
def test_letters_and_names_in_a_list_are_parts(voices):
    assert parse_voices(voices) == parse_voices("SA")


def test_numbered_names_have_the_range_of_their_part():
    (alto,) = parse_voices("A")
    assert parse_voices("alto1, alto 2") == (
        Voice("alto1", alto.fmin, alto.fmax),
        Voice("alto 2", alto.fmin, alto.fmax),
    )
