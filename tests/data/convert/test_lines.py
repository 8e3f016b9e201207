"""Lines of raw files: streamed, counted, hashed; damaged files are one sentence."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from recbole_ext.data.convert import lines as lines_module
from recbole_ext.data.convert.lines import Lines, first_lines
from recbole_ext.types import UserError
from tests.data.convert.samples import write


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_is_read_once_and_known_by_its_bytes(name, tmp_path):
    path = write(tmp_path / name, b"\xef\xbb\xbfhead", "1", "", "x", "3\r")
    lines = Lines()
    assert list(lines(path, int, head="head")) == [1, 3]
    (seen,) = lines.files
    assert seen.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (seen.file, seen.bytes) == (name, path.stat().st_size)
    assert (seen.lines, seen.malformed) == (3, 1) and seen.first_malformed[0]["line"] == 4
    assert list(first_lines(path, 2)) == ["head", "1"]


def test_lines_come_before_the_file_is_at_its_end(tmp_path):
    """No file is held: the first line is there though the archive is cut off after it."""
    path = write(tmp_path / "a.gz", *["x" * 2**20] * 4)
    path.write_bytes(path.read_bytes()[:-20])
    stream = Lines()(path, len)
    assert next(stream) == 2**20
    with pytest.raises(UserError, match=r"a.gz ends in the middle; download it once more"):
        list(stream)


def test_damaged_files_are_one_sentence(tmp_path):
    (tmp_path / "b.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"cannot read .*b.gz: Not a gzipped file"):
        list(Lines()(tmp_path / "b.gz", str))
    data = bytearray(gzip.compress(b"1\n" * 5000))
    data[12] ^= 255
    (tmp_path / "c.gz").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read .*c.gz: "):
        list(Lines()(tmp_path / "c.gz", str))
    with pytest.raises(UserError, match=r"none of its 2 lines can be read \(line 1: .*another kin"):
        list(Lines()(write(tmp_path / "d", "a", "b"), int))
    assert list(Lines()(write(tmp_path / "e"), int)) == []


def test_a_line_that_is_no_text_is_malformed(tmp_path):
    lines = Lines()
    assert list(lines(write(tmp_path / "a", b"caf\xe9", "x"), str)) == ["x"]
    assert lines.files[0].first_malformed == [{"line": 1, "reason": "it is no utf-8 text"}]
    assert list(lines(write(tmp_path / "b", b"caf\xe9"), str, "latin-1")) == ["caf\u00e9"]


@pytest.mark.parametrize("end", [b"", b"\n1"])
def test_a_line_without_end_is_malformed_and_is_never_held(end, tmp_path, monkeypatch):
    """A few kilobytes of gzip may hold one line of gigabytes."""
    monkeypatch.setattr(lines_module, "LONGEST", 10)
    path, held = write(tmp_path / "a.gz", "7", b"x" * 95 + end, "2"), []
    lines = Lines()
    assert list(lines(path, lambda line: held.append(len(line)) or int(line)))[-1] == 2
    assert max(held) == 1 and lines.files[0].malformed == 1
    assert lines.files[0].first_malformed == [{"line": 2, "reason": "it is longer than 10 bytes"}]
    assert [len(line) for line in first_lines(path, 3)][:2] == [1, 11]


@pytest.mark.parametrize("first", ["1,2,3.0,4", "movieId,userId,rating,timestamp", '"userId"'])
def test_a_first_line_that_names_other_columns_is_refused(first, tmp_path):
    """Without a first line of names a rating would be lost, and in another order all be swapped."""
    path = write(tmp_path / "ratings.csv", first, "5,6,3.0,4")
    with pytest.raises(UserError, match="ratings.csv: its first line is .*, not userId,movieId,"):
        list(Lines()(path, str, head="userId,movieId,rating,timestamp"))
