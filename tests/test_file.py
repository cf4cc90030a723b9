"""The saved file: what others read in it, how it is replaced, and what damage does."""

import datetime
import pickle
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from numpy.typing import NDArray
from pyarrow import feather
from reference import run_python

import omendb

Method = Literal["exact", "graph"]

# Written by the Rust tests: 5 rows of a column of each number type.
SAMPLE = Path(__file__).resolve().parents[1] / "src/file/sample.omen"
# The same for a column of each type of Arrow array that a table may have.
ARRAYS = SAMPLE.with_name("arrays.omen")
BLOCK = 64 * 1024

FLOATS = ("float16", "float32", "float64")
DTYPES = (*FLOATS, "int8", "uint8")


def checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little").hex().encode()


def verify_by_hand(path: Path) -> None:
    """Check every byte of a file by its documentation, without omendb."""
    data = path.read_bytes()
    length = int.from_bytes(data[-10:-6], "little")
    footer = data[-10 - length : -10]
    body_end = len(data) - 10 - length - 8
    assert data[body_end : body_end + 8] == b"\xff\xff\xff\xff\0\0\0\0"
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        origin = mapped.read_buffer().address
        entries = reader.metadata
        columns = reader.get_batch(0).columns
        columns += [column.dictionary for column in columns if pa.types.is_dictionary(column.type)]
        buffers = [buffer for column in columns for buffer in column.buffers() if buffer]
        places = sorted((buffer.address - origin, buffer.size) for buffer in buffers if buffer.size)
    assert entries[b"omendb.format"] in (b"1", b"2")
    assert entries[b"omendb.seal"] == footer[-12:-4] == checksum(footer[:-12])
    head, blocks, end = b"", b"", 0
    for start, size in places:
        assert start % 64 == 0
        assert start >= end
        head += data[end:start]
        end = start + -(-size // 64) * 64
        assert not any(data[start + size : end])
        blocks += b"".join(
            checksum(data[i : min(i + BLOCK, end)]) for i in range(start, end, BLOCK)
        )
    assert end == body_end
    assert entries[b"omendb.head"] == checksum(head)
    assert entries[b"omendb.blocks"] == blocks


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the source folder")
def test_pyarrow_and_polars_read_every_number_type_of_the_sample() -> None:
    with pa.memory_map(str(SAMPLE)) as mapped, pa.ipc.open_file(mapped) as reader:
        before = pa.total_allocated_bytes()
        batch = reader.get_batch(0)
        batch.validate(full=True)
        assert pa.total_allocated_bytes() == before  # mapped, not copied
        assert batch.schema.metadata == {b"omendb.metric": b"cosine", b"note": "für alle".encode()}
        table = batch.to_pydict()
    assert table["ids"] == [7, -1, 1 << 40, 0, 3]
    assert table["vectors"][1] == [0.375, 0.5, 0.625]
    assert table["halves"][0] == [-4.0, -3.0]
    assert table["codes"][4] == [6, 7, 8, 9]
    assert table["links"][4] == [8, 9]
    assert table["scales"] == [i / 3 for i in range(5)]
    assert feather.read_table(SAMPLE).to_pydict() == table
    assert pl.read_ipc(SAMPLE).to_dict(as_series=False) == table


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the source folder")
@pytest.mark.parametrize("path", [SAMPLE, ARRAYS], ids=lambda path: path.name)
def test_the_checksums_of_the_samples_are_those_of_their_documentation(path: Path) -> None:
    verify_by_hand(path)


@pytest.mark.skipif(not ARRAYS.exists(), reason="needs the source folder")
def test_pyarrow_pandas_and_polars_read_every_type_of_array() -> None:
    table = feather.read_table(ARRAYS, memory_map=True)
    table.validate(full=True)
    long = "a longer text of some bytes"
    cents: list[object] = [None, *(Decimal(i * 123 - 999) / 100 for i in range(1, 5))]
    expected: dict[str, tuple[pa.DataType, list[object]]] = {
        "null": (pa.null(), [None] * 5),
        "bool": (pa.bool_(), [None, False, False, True, False]),
        "int8": (pa.int8(), [-50, None, -48, -47, -46]),
        "uint64": (pa.uint64(), [2**64 - 1, 2**64 - 2, 2**64 - 3, None, 2**64 - 5]),
        "float16": (pa.float16(), [0.0, 1.0, 2.0, 3.0, None]),
        "utf8": (pa.string(), ["", "a", None, "", long]),
        "large_utf8": (
            pa.large_string(),
            ["", "a", "zwölf" * 2, None, long],
        ),
        "large_binary": (pa.large_binary(), [None, b"\1", b"\2\2", b"\3\3\3", b""]),
        "uuid": (pa.binary(16), [b"\0" * 16, None, b"\2" * 16, b"\3" * 16, b"\4" * 16]),
        "time32": (pa.time32("s"), [None, *(datetime.time(0, 0, i) for i in range(1, 5))]),
        "duration": (pa.duration("ns"), [*(-i for i in range(4)), None]),
        "decimal": (pa.decimal128(38, 2), cents),
        "level": (pa.dictionary(pa.int8(), pa.string()), ["high", None, "mid", "high", "low"]),
        "full": (pa.int64(), [0, 1, 2, 3, 4]),
    }
    for name, (kind, values) in expected.items():
        assert table.schema.field(name).type == kind
        column = table[name].cast(pa.int64()) if name == "duration" else table[name]
        assert column.to_pylist() == values, name
    assert table.schema.field("zoned").type == pa.timestamp("us", "Europe/Berlin")
    assert table.schema.field("zoned").metadata == {b"unit": b"of zoned"}
    assert not table.schema.field("full").nullable
    assert table.schema.field("ordered").type.ordered
    frame = table.drop_columns(["code"]).to_pandas()  # pandas has no category that is null
    assert list(frame["ordered"].cat.categories) == ["low", "mid", "high", "unused"]
    assert frame["ordered"].cat.ordered
    assert not frame["level"].cat.ordered
    assert list(frame["ordered"].dropna() >= "mid") == [True, False, True, False]
    polars = pl.read_ipc(ARRAYS)
    for name in ("utf8", "level", "ordered", "uint64", "decimal", "zoned", "bool"):
        assert polars[name].to_list() == table[name].to_pylist(), name


def an_index(
    rng: np.random.Generator, rows: int, dim: int, dtype: str = "float32"
) -> tuple[omendb.Index, NDArray[np.generic], NDArray[np.int64]]:
    if dtype in FLOATS:
        vectors: NDArray[np.generic] = rng.normal(size=(rows, dim)).astype(dtype)
    else:
        vectors = rng.integers(0, 100, size=(rows, dim)).astype(dtype)
    ids = rng.permutation(10 * rows)[:rows].astype(np.int64)
    return omendb.Index(vectors, ids=ids), vectors, ids


@pytest.mark.parametrize("dtype", DTYPES)
def test_others_read_the_ids_and_the_vectors_of_an_index(
    rng: np.random.Generator, tmp_path: Path, dtype: str
) -> None:
    index, vectors, ids = an_index(rng, 3000, 17, dtype)
    path = tmp_path / "x.omen"
    index.save(path)
    verify_by_hand(path)
    table = feather.read_table(path, memory_map=True)
    assert np.array_equal(table["ids"].to_numpy(), ids)
    flat = table["vectors"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(flat.reshape(vectors.shape), vectors)
    assert np.array_equal(pl.read_ipc(path)["ids"].to_numpy(), ids)
    assert np.array_equal(pl.read_ipc(path)["vectors"].to_numpy(), vectors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (7, 4096), (5000, 3)])
def test_a_loaded_index_answers_as_the_saved_one(
    rng: np.random.Generator, tmp_path: Path, rows: int, dim: int, dtype: str
) -> None:
    index, vectors, ids = an_index(rng, rows, dim, dtype)
    path = tmp_path / "x.omen"
    index.save(path)
    loaded = omendb.Index.load(path)
    assert (len(loaded), loaded.dim, loaded.metric) == (rows, dim, index.metric)
    assert np.array_equal(loaded.ids, ids)
    assert np.array_equal(loaded.vectors, vectors)
    expected, hits = index.search(vectors[:50], k=5), loaded.search(vectors[:50], k=5)
    assert np.array_equal(hits.ids, expected.ids)
    assert np.array_equal(hits.distances, expected.distances)


def test_an_empty_index_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x.omen"
    omendb.Index(dim=3, metric="cosine").save(path)
    loaded = omendb.Index.load(path)
    assert (len(loaded), loaded.dim, loaded.metric) == (0, 3, "cosine")
    loaded.add(np.eye(3, dtype=np.float32))
    assert loaded.search(np.array([1, 0, 0], dtype=np.float32), k=1).ids[0] == 0


def test_a_loaded_index_may_be_edited_and_saved_over_its_own_file(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    index, vectors, ids = an_index(rng, 4000, 8)
    path = tmp_path / "x.omen"
    index.save(path)
    loaded = omendb.Index.load(path)
    loaded.remove(ids[::2])
    loaded.save(path)
    again = omendb.Index.load(path)
    for each in (loaded, again):
        assert np.array_equal(each.ids, ids[1::2])
        assert np.array_equal(each.vectors, vectors[1::2])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.omen"]


def test_missing_files_and_folders_are_what_python_calls_them(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    index, _, _ = an_index(rng, 10, 3)
    with pytest.raises(FileNotFoundError) as missing:
        omendb.Index.load(tmp_path / "x.omen")
    assert missing.value.filename == str(tmp_path / "x.omen")
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "missing" / "x.omen")
    with pytest.raises(OSError, match="not a regular file"):
        index.save(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        omendb.Index.load(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["exact", "graph"])
@pytest.mark.parametrize("verify", [False, True])
def test_no_change_and_no_truncation_of_a_file_is_silent(
    rng: np.random.Generator, tmp_path: Path, method: Method, verify: bool
) -> None:
    """Codes and graph may be rebuilt, so a good answer is allowed; a wrong one is not."""
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    index = omendb.Index(vectors, method=method)
    path, other = tmp_path / "x.omen", tmp_path / "y.omen"
    index.save(path)
    good = path.read_bytes()
    expected = index.search(vectors, k=3, method=method, effort=40)
    for at in range(0, len(good), 3 if method == "exact" else 7):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        for data in (bytes(bad), good[:at]):
            other.write_bytes(data)
            try:
                loaded = omendb.Index.load(other, verify=verify)
                hits = loaded.search(vectors, k=3, method=method, effort=40)
            except ValueError as error:
                assert str(other) in str(error)  # noqa: PT017
                continue
            assert np.array_equal(hits.ids, expected.ids)
            assert np.array_equal(hits.distances, expected.distances)


ROWS = 5000


@pytest.fixture
def graph_file(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, NDArray[np.float32]]:
    """Save 5,000 rows around 500 centres, with a graph."""
    spread = 0.3 * rng.normal(size=(ROWS, 20))
    vectors = (rng.normal(size=(500, 20)).repeat(10, axis=0) + spread).astype(np.float32)
    omendb.Index(vectors, method="graph").save(tmp_path / "x.omen")
    return tmp_path / "x.omen", vectors


def place(path: Path, column: str) -> tuple[int, int]:
    """Return where a column's values are in a file, and their size."""
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
        values = reader.get_batch(0)[column]
        flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
        data = flat.buffers()[1].to_pybytes()
    return path.read_bytes().index(data), len(data)


def craft(path: Path, at: int, data: bytes) -> None:
    """Write over some bytes of a file, and make its checksums right again."""
    good = path.read_bytes()
    bad = bytearray(good)
    bad[at : at + len(data)] = data
    footer = len(bad) - 10 - int.from_bytes(bad[-10:-6], "little")
    for name in feather.read_table(path).schema.names:
        start, size = place(path, name)
        end = start + -(-size // 64) * 64
        for block in range(start, end, BLOCK):
            last = min(block + BLOCK, end)
            old, new = checksum(good[block:last]), checksum(bytes(bad[block:last]))
            if old != new:
                found = bad.index(old, footer)
                bad[found : found + 8] = new
    bad[-22:-14] = checksum(bytes(bad[footer:-22]))
    path.write_bytes(bad)


def damage(path: Path, column: str, row: int) -> None:
    """Flip a bit of a row in a file."""
    start, size = place(path, column)
    at = start + row * (size // ROWS)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_loading_touches_no_row_and_a_search_only_a_few(
    graph_file: tuple[Path, NDArray[np.float32]],
) -> None:
    path, vectors = graph_file
    loaded = omendb.Index.load(path)
    full = omendb.Index(vectors, method="graph")
    before = loaded.nbytes
    assert loaded.search(vectors[7], k=1, method="graph").ids[0] == 7
    after = loaded.nbytes
    assert before < after < full.nbytes
    # Damage that no search comes to is nobody's business until all is checked.
    damage(path, "vectors", 4000)
    loaded = omendb.Index.load(path)
    # So narrow a walk judges seven rows, all of the ten around one centre.
    assert loaded.search(vectors[7], k=1, method="graph", effort=10).ids[0] == 7
    with pytest.raises(ValueError, match="does not match its checksum"):
        omendb.Index.load(path, verify=True)


def test_damaged_rows_fail_every_call_that_needs_them_and_change_nothing(
    graph_file: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    path, vectors = graph_file
    damage(path, "vectors", 4999)
    other = tmp_path / "y.omen"
    other.write_bytes(b"kept")
    calls: dict[str, Callable[[omendb.Index], object]] = {
        "exact": lambda index: index.search(vectors[0], method="exact"),
        "radius": lambda index: index.search_radius(vectors[0], radius=1.0),
        "walk": lambda index: index.search(vectors[4999], k=5, method="graph"),
        "vectors": lambda index: index.vectors,
        "save": lambda index: index.save(other),
        "add": lambda index: index.add(vectors[:3]),
        "update": lambda index: index.update([4500], vectors[:1]),
        "compact": lambda index: index.remove(np.arange(4000)),
        "tune": lambda index: index.tune(0.9),
        "build": lambda index: index.build_graph(),
        "pickle": pickle.dumps,
    }
    for name, call in calls.items():
        loaded = omendb.Index.load(path)
        for _ in range(2):
            with pytest.raises(ValueError, match="block 6 of column vectors") as refused:
                call(loaded)
            assert str(path) in str(refused.value), name
        assert len(loaded) == ROWS
        assert np.array_equal(loaded.ids, np.arange(ROWS))
    assert other.read_bytes() == b"kept"


@pytest.mark.parametrize("verify", [False, True])
def test_damaged_codes_are_made_again(
    graph_file: tuple[Path, NDArray[np.float32]], verify: bool
) -> None:
    path, vectors = graph_file
    good = omendb.Index.load(path).search(vectors, k=3, method="graph")
    start, size = place(path, "codes")
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    hits = omendb.Index.load(path, verify=verify).search(vectors, k=3, method="graph")
    assert np.array_equal(hits.ids, good.ids)
    assert not np.any(hits.exact)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("crafted", [False, True])
def test_a_graph_with_damaged_links_is_built_again(
    graph_file: tuple[Path, NDArray[np.float32]], verify: bool, crafted: bool
) -> None:
    path, vectors = graph_file
    good = omendb.Index.load(path).search(vectors, k=3, method="graph")
    if crafted:  # a link to a row that there is not
        craft(path, place(path, "links")[0] + 128 * 31, ROWS.to_bytes(4, "little"))
    else:
        damage(path, "links", 4999)
    loaded = omendb.Index.load(path, verify=verify)
    first = loaded.search(vectors, k=3, method="graph")
    assert np.all(first.exact) == (not verify)  # what met the damage was answered without the graph
    hits = loaded.search(vectors, k=3, method="graph")
    assert not np.any(hits.exact)
    assert np.array_equal(hits.ids, good.ids)
    check = loaded.check()
    assert check is not None
    assert (check["unreachable"], check["dangling"], check["rows"]) == (0, 0, ROWS)


def test_a_search_of_a_damaged_graph_waits_for_no_edit(
    graph_file: tuple[Path, NDArray[np.float32]],
) -> None:
    path, _ = graph_file
    damage(path, "links", 4999)
    # It mends the graph, but not while an edit is under way that waits for what the search holds.
    found = run_python(
        """
import sys, threading, numpy as np, omendb
index = omendb.Index.load(sys.argv[1])
row, hits = index.vectors[4999], []

def search(done, total):
    thread = threading.Thread(target=lambda: hits.append(index.search(row, 5, method="graph")))
    thread.start()
    thread.join()
    hits.append(index.search(row, 5, method="graph"))

index.build_graph(progress=search)
print(len(hits), all(hit.exact and hit.ids[0] == 4999 for hit in hits))
hits = index.search(row, 5, method="graph")
print(hits.exact, hits.ids[0])
""",
        path,
        timeout=60,
    )
    first, last = found.splitlines()
    assert int(first.split()[0]) >= 2
    assert first.split()[1] == "True"
    assert last == "False 4999"


def test_crafted_codes_change_no_exact_answer(
    graph_file: tuple[Path, NDArray[np.float32]], rng: np.random.Generator
) -> None:
    path, vectors = graph_file
    start, size = place(path, "codes")
    craft(path, start, rng.bytes(size))
    loaded = omendb.Index.load(path, verify=True)
    index = omendb.Index(vectors)
    queries = rng.normal(size=(200, 20)).astype(np.float32)
    walked = loaded.search(queries, k=5, method="graph")
    assert walked.ids.shape == (200, 5)
    hits, expected = loaded.search(queries, k=5, method="exact"), index.search(queries, k=5)
    assert np.array_equal(hits.ids, expected.ids)
    assert np.array_equal(hits.distances, expected.distances)
    assert np.array_equal(
        loaded.search_radius(queries, 3.0).ids, index.search_radius(queries, 3.0).ids
    )


def test_a_crafted_row_that_is_no_number_is_refused(
    graph_file: tuple[Path, NDArray[np.float32]],
) -> None:
    path, vectors = graph_file
    craft(path, place(path, "vectors")[0] + 80 * 3000, np.float32(np.nan).tobytes())
    with pytest.raises(ValueError, match="row 3000 holds"):
        omendb.Index.load(path, verify=True)
    loaded = omendb.Index.load(path)
    with pytest.raises(ValueError, match="row 3000 holds"):
        loaded.search(vectors[0], method="exact")


def test_a_file_that_says_that_its_rows_have_no_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.omen"
    omendb.Index(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(path)
    data = path.read_bytes()
    at = data.rindex(b"yes", 0, data.rindex(b"omendb.typed") + 60)
    for text in (b"no\0", b"yas"):
        craft(path, at, text)
        with pytest.raises(ValueError, match=r"omendb\.typed makes no sense"):
            omendb.Index.load(path)


def test_threads_that_meet_a_loaded_index_first_agree(
    graph_file: tuple[Path, NDArray[np.float32]],
) -> None:
    path, vectors = graph_file
    loaded, index = omendb.Index.load(path), omendb.Index(vectors, method="graph")
    ways: list[Method] = ["graph", "exact"] * 4
    with ThreadPoolExecutor(8) as pool:
        hits = list(pool.map(lambda way: loaded.search(vectors[:300], k=3, method=way), ways))
    for way, found in zip(ways, hits, strict=True):
        assert np.array_equal(found.ids, index.search(vectors[:300], k=3, method=way).ids)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    feather.write_feather(pa.table({"ids": [1, 2, 3]}), path, compression="uncompressed")
    with pytest.raises(ValueError, match="omendb has not written it"):
        omendb.Index.load(path)
    path.write_bytes(b"not an arrow file, but long enough to be one")
    with pytest.raises(ValueError, match="does not begin as an Arrow file"):
        omendb.Index.load(path)
