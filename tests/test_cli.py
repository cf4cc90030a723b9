"""The command line: what it prints for people and for programs, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import Array

import omendb
from omendb import __main__ as cli
from omendb import _core

DIM = 8


@pytest.fixture
def rows(rng: np.random.Generator) -> Array:
    return rng.standard_normal((3000, DIM)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path, rows: Array) -> Path:
    path = tmp_path / "x.omen"
    omendb.Index(rows, metric="cosine", method="graph").save(path)
    return path


@pytest.fixture
def queries(tmp_path: Path, rows: Array) -> Path:
    path = tmp_path / "q.npy"
    np.save(path, rows[:3])
    return path


def run(*arguments: str | Path) -> int:
    return cli.main([str(argument) for argument in arguments])


def from_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_info_says_what_is_in_a_file(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", saved, "--json") == 0
    facts = from_json(capsys)
    assert [column["name"] for column in facts["columns"]] == ["ids", "vectors", "codes", "links"]
    assert facts["columns"][1] == {
        "name": "vectors",
        "type": f"float32[{DIM}]",
        "bytes": 3000 * DIM * 4,
    }
    del facts["columns"]
    assert facts == {
        "path": str(saved),
        "bytes": saved.stat().st_size,
        "rows": 3000,
        "dim": DIM,
        "metric": "cosine",
        "dtype": "float32",
        "graph": True,
        "effort": 64,
    }
    assert run("info", saved) == 0
    table = capsys.readouterr().out
    for word in ("3,000", "cosine", "yes, effort 64", f"float32[{DIM}]", "93.8 KiB"):
        assert word in table


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint8"])
def test_info_names_every_number_type(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    omendb.Index(np.ones((2, 3)).astype(kind)).save(tmp_path / "x.omen")
    assert run("info", tmp_path / "x.omen", "--json") == 0
    assert from_json(capsys)["dtype"] == dtype


def test_an_empty_index_is_told_of_verified_and_searched(
    tmp_path: Path, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.omen"
    omendb.Index(dim=DIM).save(path)
    assert run("info", path, "--json") == 0
    assert from_json(capsys)["rows"] == 0
    assert run("verify", path) == 0
    capsys.readouterr()
    assert run("search", path, "--query-file", queries, "--json") == 0
    assert from_json(capsys)["ids"] == [[], [], []]


def test_verify_finds_nothing_in_a_good_file(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", saved, "--json") == 0
    facts = from_json(capsys)
    assert (facts["ok"], facts["damage"]) == (True, [])
    assert facts["graph"]["unreachable"] == 0
    assert run("verify", saved) == 0
    out, err = capsys.readouterr()
    assert out.count("  good\n") == 4
    assert err == ""


@pytest.mark.parametrize("column", ["ids", "vectors", "codes", "links", None])
def test_verify_names_the_damaged_column(
    column: str | None, saved: Path, rows: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    place = 20  # in what describes the file
    vectors = saved.read_bytes().index(rows.tobytes())
    if column is not None:
        sizes = {found["name"]: found["bytes"] for found in _core.file_columns(saved)}
        after = vectors + sizes["vectors"]
        starts = {"vectors": vectors, "codes": after, "links": after + sizes["codes"]}
        place = starts.get(column, vectors - sizes["ids"]) + 200
    flip(saved, place)
    assert run("verify", saved, "--json") == 1
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["ok"] is False
    found = [found["name"] for found in facts["columns"] if found["damage"]]
    assert found == ([column] if column else [])
    assert len(facts["damage"]) == 1
    assert err.count("\n") == 1
    assert str(saved) in err
    assert run("verify", saved) == 1
    out, err = capsys.readouterr()
    assert out.count("  damaged\n") == len(found)
    assert err.startswith("omendb: ")


def test_search_answers_as_python_does(
    saved: Path, queries: Path, rows: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = omendb.Index(rows, metric="cosine").search(rows[:3], k=4)
    asked: list[str | Path] = ["search", saved, "--query-file", queries, "--k", "4"]
    assert run(*asked, "--json", "--method", "exact") == 0
    facts = from_json(capsys)
    assert facts["ids"] == expected.ids.tolist()
    assert facts["distances"] == expected.distances.tolist()
    assert (facts["exact"], facts["k"], facts["metric"]) == ([True] * 3, 4, "cosine")
    assert run(*asked, "--method", "graph", "--effort", "20") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["query", "rank", "id", "distance"]
    assert [line[:3] for line in lines[1::4]] == [[str(i), "0", str(i)] for i in range(3)]


def test_one_query_may_be_a_flat_array(
    saved: Path, tmp_path: Path, rows: Array, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "one.npy", rows[7])
    assert run("search", saved, "--query-file", tmp_path / "one.npy", "--k", "1", "--json") == 0
    assert from_json(capsys)["ids"] == [[7]]


def test_a_distance_beyond_float32_is_null(
    tmp_path: Path, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "far.omen"
    far = np.zeros((2, DIM), np.float32)
    far[1] = 1e25
    omendb.Index(far, metric="sqeuclidean").save(path)
    assert run("search", path, "--query-file", queries, "--json") == 0
    facts = from_json(capsys)
    assert facts["ids"] == [[0, 1]] * 3
    assert [near is None for near in facts["distances"][0]] == [False, True]


@pytest.mark.parametrize("kind", ["text", "UUID"])
def test_a_file_with_ids_of_ones_own_and_metadata_is_told_of_verified_and_searched(
    kind: str, tmp_path: Path, rows: Array, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrow = pytest.importorskip("pyarrow")
    ids: list[Any] = [
        f"päckchen {i}" if kind == "text" else uuid.UUID(int=i) for i in range(len(rows))
    ]
    path = tmp_path / "table.omen"
    frame = {"weight": arrow.array(range(len(rows)), arrow.int64())}
    index = omendb.Index(rows, ids=ids)
    if kind == "text":
        frame |= {"name": arrow.array(ids), "vector": arrow.array(rows.tolist())}
        index = omendb.Index.from_frame(arrow.table(frame), vector="vector", id="name")
    index.save(path)
    assert run("info", path) == 0
    columns = capsys.readouterr().out
    assert ("weight" in columns) == (kind == "text")
    assert run("verify", path) == 0
    assert "damaged" not in capsys.readouterr().out
    assert run("search", path, "--query-file", queries, "-k", "2") == 0
    assert str(ids[0]) in capsys.readouterr().out
    assert run("search", path, "--query-file", queries, "--k", "2", "--json") == 0
    found = from_json(capsys)
    assert found["ids"] == [[str(id) for id in line] for line in index.search(rows[:3], 2).ids]
    # Of what is flipped in a column of the table, its name is told.
    if kind == "text":
        place = path.read_bytes().index("päckchen 1500".encode())
        flip(path, place)
        assert run("verify", path) == 1
        assert "name" in "".join(
            line for line in capsys.readouterr().out.splitlines() if "damaged" in line
        )


def test_ids_that_would_break_the_table_are_printed_on_one_line(
    tmp_path: Path, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ["two\nlines", "\x1b[31mred", "\u202eturned"]
    omendb.Index(np.eye(3, DIM), ids=ids).save(tmp_path / "x.omen")
    assert run("search", tmp_path / "x.omen", "--query-file", queries) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 * 3
    assert {line[16:28].strip() for line in lines[1:]} == {"two lines", "[31mred", "turned"}
    assert run("search", tmp_path / "x.omen", "--query-file", queries, "--json") == 0
    assert sorted(from_json(capsys)["ids"][0]) == sorted(ids)


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are text there")
@pytest.mark.parametrize("command", [["info"], ["verify"], ["search", "--query-file", "q.npy"]])
def test_a_path_of_any_bytes_is_json_for_every_reader(
    command: list[str],
    saved: Path,
    queries: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(queries.parent)
    path = os.fsdecode(b"\xff\xc3\xa4.omen")
    saved.rename(path)
    assert run(*command, path, "--json") == 0
    assert from_json(capsys)["path"] == "?ä.omen"


def test_queries_may_come_through_a_pipe(saved: Path, queries: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omendb", "search", saved, "--query-file", "/dev/stdin", "--json"],
        input=queries.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [found[0] for found in json.loads(done.stdout)["ids"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "closed", "status"),
    [
        ("info {saved}", ">&-", 1),
        ("info {saved} --json", ">&-", 1),
        ("--help", ">&-", 1),
        ("info none.omen", ">&-", 1),
        ("info none.omen", "2>&-", 1),
        ("info", "2>&-", 2),
        ("info none.omen", ">&- 2>&-", 1),
    ],
)
def test_a_stream_that_is_closed_sends_nothing_to_the_other(
    arguments: str, closed: str, status: int, saved: Path
) -> None:
    command = f"'{sys.executable}' -m omendb {arguments.format(saved=saved)} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    told = b"omendb: standard output is closed\n" if closed == ">&-" else b""
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", told)


def test_lines_fit_the_terminal(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert run("info", saved) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) == 30


class Evil:
    """Does harm where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (3,))


BAD_QUERIES: dict[str, Any] = {
    "wrong width": (np.ones((2, DIM + 1)), f"expected queries of {DIM} dimensions, got {DIM + 1}"),
    "objects": (np.array([[Evil()]], dtype=object), "objects would have to be unpickled"),
    "text": (np.array(["a"]), "real numbers"),
    "a cube": (np.ones((2, 2, DIM)), "1 or 2 dimensions"),
    "nan": (np.full((1, DIM), np.nan), "row 0 of the queries holds NaN"),
    "no array": (b"hello, world", "as an array of numbers (.npy)"),
    "nothing": (b"", "as an array of numbers (.npy)"),
    "too short": (None, "as an array of numbers (.npy)"),
    "far too large": (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8), }".ljust(118),
        "as an array of numbers (.npy)",
    ),
}


@pytest.mark.parametrize("what", BAD_QUERIES)
def test_bad_queries_are_one_line_and_status_1(
    what: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD_QUERIES[what]
    path = tmp_path / "bad.npy"
    if content is None:
        np.save(path, np.ones((4, DIM)))
        path.write_bytes(path.read_bytes()[:-9])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    assert run("search", saved, "--query-file", path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_bad_files_are_one_line_and_status_1(
    saved: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str | Path]] = [["info"], ["verify"], ["search", "--query-file", queries]]
    for command in commands:
        for file, message in (
            (tmp_path / "none.omen", "No such file"),
            (tmp_path, "not a regular file"),
            (queries, "as an index"),
        ):
            assert run(*command, file) == 1
            out, err = capsys.readouterr()
            assert message in err
            assert str(file) in err
            assert (out, err.count("\n")) == ("", 1)
    assert run("search", saved, "--query-file", tmp_path / "none.npy") == 1
    assert "none.npy: No such file" in capsys.readouterr().err
    plain = tmp_path / "plain.omen"
    omendb.Index(np.eye(DIM)).save(plain)
    assert run("search", plain, "--query-file", queries, "--method", "graph") == 1
    assert "the index has no graph" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["verify", "a", "b"],
        ["search", "x.omen"],
        ["search", "x.omen", "--query-file", "q.npy", "--k", "0"],
        ["search", "x.omen", "--query-file", "q.npy", "--effort", "-1"],
        ["search", "x.omen", "--query-file", "q.npy", "--method", "fast"],
    ],
)
def test_a_command_line_without_sense_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["info"], ["verify"], ["search"]])
def test_help_tells_the_exit_statuses_and_the_keys(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*command, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "exit status:" in text
    assert ("with --json" in text) == bool(command)


def test_it_runs_as_a_module(saved: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "omendb", "verify", saved],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "all is as it was written" in process.stdout
