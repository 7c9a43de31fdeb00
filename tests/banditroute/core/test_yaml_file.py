"""YAML files: duplicate keys are refused with their path and line, and keys know their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from banditroute.core.yaml_file import DuplicateKeyError, YamlError, YamlFile, read_yaml


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(tmp_path: Path, text: str) -> YamlFile:
    return read_yaml(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 1", "a (line 2): given twice"),
        ("a: 1\n'a': 2", "a (line 2): given twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "a.b (line 4): given twice"),
        ("a:\n  - b: 1\n  - c: 2\n    c: 3", "a[1].c (line 4): given twice"),
        ("a: {x: 1, x: 2}\nb: 1\nb: 2", "a.x (line 1): given twice"),
        ("a: &x {b: 1, b: 2}\nc: *x", "a.b (line 1): given twice"),
        ("a:\n  <<: {b: 1, b: 2}", "a.b (line 2): given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DuplicateKeyError) as caught:
        read(tmp_path, text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML in line 1: "),
        ("a: 1\nb: !!python/object:os.system x", "not YAML in line 2: could not determine"),
        ("? [a]\n: b", "not YAML in line 1: found unhashable key"),
        ("a: 1\n---\nb: 2", "not YAML in line 2: but found another document"),
        ("a: \0", "not YAML: unacceptable character #x0000"),
        ("a: 2020-13-01", "not YAML: month must be in 1..12"),
        ("- a", "a mapping of keys is expected"),
        ("words", "a mapping of keys is expected"),
        (b"a: \xff", "not UTF-8: 'utf-8' codec can't decode byte 0xff in position 3"),
    ],
)
def test_what_is_no_mapping_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml(written(tmp_path, text))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="^No such file or directory$"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(YamlError, match="^Is a directory$"):
        read_yaml(tmp_path)


def test_an_empty_file_has_no_content(tmp_path: Path) -> None:
    for text in ("", "# a comment\n", "---\n"):
        file = read(tmp_path, text)
        assert file.content is None and file.line(("a",)) is None
    assert read(tmp_path, "{}").content == {}


def test_a_key_and_an_item_have_their_lines(tmp_path: Path) -> None:
    file = read(tmp_path, "a: 1\nb:\n  - c: 2\n  -\n    d: 3\n1: x\n")
    assert file.content == {"a": 1, "b": [{"c": 2}, {"d": 3}], 1: "x"}
    assert [file.line(place) for place in (("a",), ("b",), ("b", 0), ("b", 0, "c"))] == [1, 2, 3, 3]
    assert (file.line(("b", 1)), file.line(("b", 1, "d")), file.line((1,))) == (5, 5, 6)
    assert file.line(()) == 1
    for absent in (("x",), ("a", "x"), ("b", 2), ("b", "c"), ("b", 0, "x", "y")):
        assert file.line(absent) is None


def test_a_merged_key_has_the_line_of_its_own_value_else_of_the_anchor(tmp_path: Path) -> None:
    file = read(tmp_path, "base: &base {x: 1, y: 2}\nown:\n  <<: *base\n  y: 3\n")
    assert file.content == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}}
    assert (file.line(("own", "x")), file.line(("own", "y"))) == (1, 4)


def test_a_list_that_holds_itself_is_read(tmp_path: Path) -> None:
    content = read(tmp_path, "a: &a [*a]").content
    assert content is not None and content["a"][0] is content["a"]
