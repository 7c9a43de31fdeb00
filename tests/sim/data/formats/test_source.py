"""What all text formats share: encodings, containers, and how a format is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.data.formats import load
from sim.errors import InputError


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"prompt,a\np,True\n\xff,True\n", "a.csv: line 3: not UTF-8 text"),
        ("a.csv", "prompt,a\np,True\n".encode("utf-16"), "a.csv: line 1: not UTF-8 text"),
        ("a.jsonl", b'{"query": "q"}\n{"query": "\xe9"}\n', "a.jsonl: line 2: not UTF-8 text"),
        ("a.jsonl", b'{"query": "q", "query": "r"}\n', "a.jsonl: row 1, column 'query': appears twice"),
        ("a.jsonl", b'{"query": "q"} {"query": "r"}\n', "a.jsonl: row 1: not JSON"),
        ("a.jsonl", b"\n \n", "a.jsonl: no rows"),
        ("a.parquet", b"", "a.parquet: not a parquet file"),
        ("a.parquet", b"PAR1PAR1", "a.parquet: not a parquet file"),
        ("a.pkl", b"", "a.pkl: opening a pickle"),
        ("a", b"", "a: no rows"),
    ],
)  # fmt: skip
def test_unreadable_files_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(written(tmp_path, name, content))


def test_a_byte_order_mark_and_windows_lines_are_no_matter(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"query": "a"}\r\n\r\n{"query": "b"}\r\n')
    assert load(path).prompts == ("a", "b")
    path = written(tmp_path, "a.csv", b"\xef\xbb\xbfprompt,a\r\np,True\r\n\r\nq,False\r\n")
    assert load(path).quality.tolist() == [[1.0], [0.0]]


def test_a_format_can_be_forced_and_is_told_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'{"query": "a"}\n')
    with pytest.raises(InputError, match="--format: unknown format 'nope'; valid: canonical, "):
        load(path, format="nope")
    with pytest.raises(InputError, match=r"--format routellm: .*a.jsonl is json, not csv"):
        load(path, format="routellm")
    with pytest.raises(InputError, match="row 1, column 'question': missing|'scores': missing"):
        load(path, format="routerdc")
    with pytest.raises(InputError, match="--pool: of the URL"):
        load(path, pool="p")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match=f"{path}: no such file"):
            load(path)
