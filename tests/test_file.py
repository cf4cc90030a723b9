"""The saved file: what others read in it, how it is replaced, and what damage does."""

import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from numpy.typing import NDArray
from pyarrow import feather

import omendb

# Written by the Rust tests: 5 rows of a column of each number type.
SAMPLE = Path(__file__).resolve().parents[1] / "src/file/sample.omen"
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
        entries = reader.metadata
        batch = reader.get_batch(0)
        places = []
        for column in batch.columns:
            values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
            buffer = values.buffers()[1]
            places.append((buffer.address, buffer.size))
    assert entries[b"omendb.format"] == b"1"
    assert entries[b"omendb.seal"] == footer[-12:-4] == checksum(footer[:-12])
    sizes = [-(-size // 64) * 64 for _, size in places]
    start = body_end - sum(sizes)
    assert start % 64 == 0
    assert entries[b"omendb.head"] == checksum(data[:start])
    blocks = b""
    for (_, size), padded in zip(places, sizes, strict=True):
        column = data[start : start + padded]
        assert not any(column[size:])
        blocks += b"".join(checksum(column[i : i + BLOCK]) for i in range(0, padded, BLOCK))
        start += padded
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
def test_the_checksums_of_the_sample_are_those_of_its_documentation() -> None:
    verify_by_hand(SAMPLE)


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


def test_no_change_and_no_truncation_of_a_file_is_silent(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Codes and graph may be rebuilt, so a good answer is allowed; a wrong one is not."""
    index, vectors, _ = an_index(rng, 40, 5)
    path, other = tmp_path / "x.omen", tmp_path / "y.omen"
    index.save(path)
    good = path.read_bytes()
    expected = index.search(vectors, k=3)
    for at in range(0, len(good), 3):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        for data in (bytes(bad), good[:at]):
            other.write_bytes(data)
            try:
                loaded = omendb.Index.load(other)
                hits = loaded.search(vectors, k=3)
            except ValueError as error:
                assert str(other) in str(error)  # noqa: PT017
                continue
            assert np.array_equal(hits.ids, expected.ids)
            assert np.array_equal(hits.distances, expected.distances)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    feather.write_feather(pa.table({"ids": [1, 2, 3]}), path, compression="uncompressed")
    with pytest.raises(ValueError, match="checksum that omendb would have put there"):
        omendb.Index.load(path)
    path.write_bytes(b"not an arrow file, but long enough to be one")
    with pytest.raises(ValueError, match="does not begin as an Arrow file"):
        omendb.Index.load(path)
