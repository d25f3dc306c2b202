"""Reading YAML: lines, variables, keys that stand twice."""

from datetime import date
from pathlib import Path

import pytest

from rtsx.config.yaml import dump_yaml, parse_yaml, read_yaml
from rtsx.errors import ConfigError


def values(text: str, **environment: str) -> object:
    return parse_yaml(text, name="f", environment=environment).values


def test_every_key_and_entry_has_its_line() -> None:
    lines = parse_yaml("a:\n  b: 1\n  c:\n  - x\n  - {d: 2}\n", name="f").lines
    assert lines[("a", "b")] == 2
    assert lines[("a", "c", 1)] == 5
    assert lines[("a", "c", 1, "d")] == 5


def test_variables_are_filled_in_everywhere() -> None:
    text = "a: ${ONE}/x\nb: ['${TWO:-two}', $$5, '${EMPTY:-full}']\n"
    assert values(text, ONE="1", EMPTY="") == {"a": "1/x", "b": ["two", "$5", "full"]}


def test_a_variable_that_is_not_set_is_a_complaint_with_its_place() -> None:
    (complaint,) = parse_yaml("a: {b: '${NOWHERE}'}", name="f", environment={}).complaints
    assert complaint.path == ("a", "b")
    assert "NOWHERE" in complaint.text


def test_a_key_that_stands_twice_is_a_complaint() -> None:
    (complaint,) = parse_yaml("a: 1\nb: 2\na: 3\n", name="f").complaints
    assert complaint.path == ("a",)
    assert "first in line 1" in complaint.text


def test_merges_are_no_doubled_keys() -> None:
    document = parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}\n", name="f")
    assert document.values["y"] == {"a": 1, "b": 2}
    assert document.complaints == ()


@pytest.mark.parametrize("text", ["a: [1\nb: 2", "a: 1\n\tb: 2"])
def test_what_is_no_yaml_names_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f: line 2, column"):
        parse_yaml(text, name="f")


def test_a_variable_without_quotes_in_brackets_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"line 2.*Within brackets and braces, a variable stands in quotes"):
        parse_yaml("a: 1\nb: [${TWO}]\n", name="f")


def test_nothing_is_an_empty_mapping() -> None:
    assert values("# only a comment\n") == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be opened: There is no such file"):
        read_yaml(tmp_path / "gone.yaml")


def test_what_is_dumped_comes_back() -> None:
    given = {
        "dollar": "${NOT_A_VARIABLE} $ $$",
        "day": date(2024, 7, 1),
        "text": "2024-07-01",
        "numbers": (1, 2.5, -1e-7),
        "same": [date(2024, 7, 1), {"x": None}],
        "empty": [],
        "bool": "yes",
    }
    back = values(dump_yaml(given))
    assert back == {**given, "numbers": [1, 2.5, -1e-7]}
    assert "&id" not in dump_yaml(given)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1.5E3", 1500.0), (".5", 0.5), ("-2", -2), ("0x1F", 31), ("0190", "0190"), ("20240721_200707", "20240721_200707"),
     ("1_0.5", "1_0.5"), ("-.inf", float("-inf")), ("1.0.0", "1.0.0"), ("12:30:00", "12:30:00"), ("e3", "e3")],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert values(f"a: {text}") == {"a": value}
    assert values(dump_yaml({"a": value, "b": text})) == {"a": value, "b": text}


@pytest.mark.parametrize(
    "value",
    [
        "2024-13-45",
        "!!int abc",
        "!!bool maybe",
        "!!timestamp x",
        "!!float ''",
        "!!python/object/apply:os.system ['true']",
        "&a [*a]",
        "[" * 5000,
        "9" * 5000,
        "0x" + "f" * 9000,
        '"\\UFFFFFFFF"',
        "a\0b",
    ],
)
def test_what_yaml_stumbles_over_is_told_by_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^f: line 2, column"):
        parse_yaml(f"one: 1\nb: {value}\n", name="f")


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_billions_are_refused_before_they_are_written_out(level: str) -> None:
    text = "a0: &a0 {x: 1}\n"
    text += "".join(f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match=r"^f: line \d+, column \d+: with its aliases this is more than 1,000,000"):
        parse_yaml(text, name="f")


def test_a_text_of_another_author_is_given_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "SECRET")
    assert parse_yaml("a: $$ ${KEY} ${KEY:-x}", name="f", environment=None).values == {"a": "$ ${KEY} ${KEY:-x}"}
