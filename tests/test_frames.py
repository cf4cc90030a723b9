"""Frames in and out: what is borrowed, what ids and metadata come back as, and what is refused."""

from __future__ import annotations

import copy
import datetime
import decimal
import gc
import pickle
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reference import Array, run_for, run_python

import omendb
from omendb.frames import booleans

N, DIM = 40, 6
Frame = Any


class Exporter:
    """What exports Arrow's stream and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


def fixed(values: Array) -> pa.Array:
    """Vectors as Arrow's lists of a fixed size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def listed(values: Array, kind: Any) -> pa.Array:
    """Vectors as Arrow's lists of any size."""
    return pa.array(list(values), kind(pa.from_numpy_dtype(values.dtype)))


def names(n: int = N) -> list[str]:
    return [f"row {i} ü" for i in range(n)]


def sizes(n: int = N) -> Array:
    return np.arange(n) * 3


def arrow(vectors: Any, n: int = N) -> pa.Table:
    return pa.table({"size": sizes(n), "v": vectors, "name": names(n)})


def of_pandas(values: Array, column: Any = list) -> pd.DataFrame:
    frame = pd.DataFrame({"size": sizes(len(values)), "name": names(len(values))})
    frame.insert(1, "v", pd.Series(column(values), dtype=object))
    return frame


def arrow_backed(array: pa.Array) -> pd.DataFrame:
    frame = pd.DataFrame({"size": sizes(), "name": names()})
    frame["v"] = pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([array])))
    return frame


def sliced(values: Array) -> pa.Table:
    """The same rows, in the middle of a longer table."""
    longer = np.concatenate([values[:3] + 1, values, values[:2] - 1])
    table = pa.table(
        {"size": sizes(N + 5) - 9, "v": fixed(longer), "name": ["x"] * 3 + names() + ["y"] * 2}
    )
    return table.slice(3, N)


FRAMES: dict[str, Callable[[Array], Frame]] = {
    "pandas arrays": of_pandas,
    "pandas lists": lambda x: of_pandas(x, lambda x: [row.tolist() for row in x]),
    "pandas Arrow lists": lambda x: arrow_backed(listed(x, pa.list_)),
    "pandas Arrow fixed": lambda x: arrow_backed(fixed(x)),
    "Polars array": lambda x: pl.DataFrame(
        {
            "size": sizes(),
            "v": pl.Series(x, dtype=pl.Array(pl.Series(x[0]).dtype, DIM)),
            "name": names(),
        }
    ),
    "Polars list": lambda x: pl.DataFrame(
        {"size": sizes(), "v": pl.Series([row.tolist() for row in x]), "name": names()}
    ),
    "Arrow fixed": lambda x: arrow(fixed(x)),
    "Arrow lists": lambda x: arrow(listed(x, pa.list_)),
    "Arrow large lists": lambda x: arrow(listed(x, pa.large_list)),
    "Arrow list views": lambda x: arrow(listed(x, pa.list_view)),
    "Arrow chunks": lambda x: pa.concat_tables(
        [arrow(fixed(x)).slice(0, 7), arrow(fixed(x)).slice(7, 0), arrow(fixed(x)).slice(7)]
    ),
    "Arrow slice": sliced,
    "Arrow list slice": lambda x: (
        arrow(listed(np.concatenate([x[:3], x]), pa.list_), N + 3)
        .slice(3)
        .set_column(0, "size", pa.array(sizes()))
        .set_column(2, "name", pa.array(names()))
    ),
    "Arrow batch": lambda x: arrow(fixed(x)).to_batches()[0],
    "Arrow reader": lambda x: arrow(fixed(x)).to_reader(),
    "exporter": lambda x: Exporter(arrow(fixed(x))),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_every_frame_gives_the_index_of_its_array(
    kind: str, dtype: str, rng: np.random.Generator
) -> None:
    values = (10 * rng.standard_normal((N, DIM))).astype(dtype)
    index = omendb.Index.from_frame(FRAMES[kind](values), vector="v", id="name")
    expected = omendb.Index(values).search(values[:5], 4)
    hits = index.search(values[:5], 4)
    assert hits.ids.dtype == object
    assert hits.ids.tolist() == [[names()[i] for i in row] for row in expected.ids]
    np.testing.assert_allclose(hits.distances, expected.distances, rtol=1e-6)
    frame = hits.to_pandas()
    assert list(frame.columns) == ["query", "rank", "name", "distance", "size"]
    assert frame["size"].tolist() == (3 * expected.ids.ravel()).tolist()
    assert index.ids.tolist() == names()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8"])
@pytest.mark.parametrize("kind", ["Arrow fixed", "Arrow slice", "Arrow lists", "exporter"])
def test_one_chunk_of_lists_is_borrowed(kind: str, dtype: str, rng: np.random.Generator) -> None:
    values = (40 + 5 * rng.standard_normal((N, DIM))).astype(dtype)
    frame = FRAMES[kind](values)
    table = frame.table if kind == "exporter" else frame
    chunk = table["v"].chunk(0)
    flat = chunk.flatten()  # without what lies before a slice
    start = flat.buffers()[1].address + flat.offset * values.itemsize
    index = omendb.Index.from_frame(frame, vector="v")
    assert index.vectors.ctypes.data == start
    assert omendb.Index.from_frame(table, vector="v", copy=True).vectors.ctypes.data != start
    assert index.vectors.dtype == dtype
    assert not index.vectors.flags.writeable
    del frame, table, chunk, flat
    gc.collect()
    _ = [np.full((N, DIM), 99, dtype) for _ in range(100)]  # what was freed is written over
    np.testing.assert_array_equal(index.vectors, values)
    np.testing.assert_array_equal(index.search(values, 1).ids[:, 0], np.arange(N))


def test_a_polars_array_is_borrowed(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    frame = pl.DataFrame({"v": values})
    index = omendb.Index.from_frame(frame, vector="v")
    assert index.vectors.ctypes.data == frame["v"].to_numpy().ctypes.data


def test_a_column_of_pandas_backed_by_arrow_is_borrowed(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), DIM)
    frame = pd.DataFrame({"v": pd.Series(lists, dtype=pd.ArrowDtype(lists.type))})
    index = omendb.Index.from_frame(frame, vector="v")
    assert index.vectors.ctypes.data == lists.flatten().buffers()[1].address


def test_numbers_that_begin_within_their_own_array_are_borrowed(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    before = np.full(5, np.nan)
    flat = pa.array(np.concatenate([before, values.ravel()]))[len(before) :]
    lists = pa.FixedSizeListArray.from_arrays(flat, DIM)
    for first in (0, 3):
        index = omendb.Index.from_frame(pa.table({"v": lists[first:]}), vector="v")
        start = flat.buffers()[1].address + (len(before) + first * DIM) * 8
        assert index.vectors.ctypes.data == start
        np.testing.assert_array_equal(index.vectors, values[first:])


def test_borrowed_lists_take_no_resident_memory() -> None:
    script = """
import numpy as np, pyarrow as pa, omendb

def resident():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

values = pa.array(np.random.default_rng(0).standard_normal(40_000 * 512, np.float32))
table = pa.table({"v": pa.FixedSizeListArray.from_arrays(values, 512)})
small = omendb.Index.from_frame(table.slice(0, 2000), vector="v")
small.search(np.ones(512), 3)
before = resident()
index = omendb.Index.from_frame(table, vector="v")
index.search(np.ones((5, 512), np.float32), 3)
print(resident() - before, index.nbytes / 2**20)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc on this system")
    grown, beside = map(float, run_python(script).split())
    assert beside < 30  # of 78 MiB of vectors
    assert grown < beside + 25


def test_metadata_and_ids_do_not_change_with_the_frame(rng: np.random.Generator) -> None:
    frame = pd.DataFrame(
        {"id": np.arange(N), "size": sizes(), "v": list(rng.standard_normal((N, DIM)))}
    )
    index = omendb.Index.from_frame(frame, vector="v", id="id")
    frame.loc[:, "id"] = -1
    frame["size"].to_numpy(copy=False)
    frame.iloc[:, 1] = -1
    assert index.ids.tolist() == list(range(N))
    assert index.get([3]).to_pandas()["size"].tolist() == [9]


def test_a_block_of_columns_is_a_vector(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, 3))
    wide = pd.DataFrame(values, columns=["x", "ÿ", 2])
    wide["flag"] = values[:, 0] > 0
    wide["n"] = np.arange(N, dtype=np.int8)
    expected = np.column_stack([values, np.arange(N)])
    columns = ["x", "ÿ", "2", "n"]
    text = wide.rename(columns={2: "2"})
    frames: list[tuple[Frame, list[Any]]] = [
        (wide, ["x", "ÿ", 2, "n"]),
        (text.convert_dtypes(), columns),
        (text.convert_dtypes(dtype_backend="pyarrow"), columns),
        (text.astype({"x": pd.SparseDtype(float), "n": pd.SparseDtype("int8", 0)}), columns),
        (pl.from_pandas(text), columns),
        (pa.Table.from_pandas(text), columns),
    ]
    for frame, vector in frames:
        index = omendb.Index.from_frame(frame, vector=vector)
        np.testing.assert_array_equal(index.vectors, expected)
        assert index.vectors.dtype == np.float64
        got = index.search(expected[:2], 1).to_pandas()
        assert got["flag"].tolist() == wide["flag"].tolist()[:2]
    all_small = wide[["n", "n"]].set_axis(["a", "b"], axis=1)
    assert omendb.Index.from_frame(all_small, vector=["a", "b"]).vectors.dtype == np.int8


# Ids --------------------------------------------------------------------------------------


def uuids(n: int = N) -> list[uuid.UUID]:
    return [uuid.UUID(int=i << 70 | 7) for i in range(n)]


IDS: dict[str, tuple[Any, list[Any]]] = {
    "strings": (names(), names()),
    "strings of NumPy": (np.array(names()), names()),
    "variable strings of NumPy": (np.array(names(), np.dtypes.StringDType()), names()),
    "strings as objects": (np.array(names(), object), names()),
    "strings of pandas": (pd.Series(names(), index=range(5, N + 5)), names()),
    "an index of pandas": (pd.Index(names()), names()),
    "categories of pandas": (pd.Series(names()).astype("category"), names()),
    "strings of Polars": (pl.Series(names()), names()),
    "categories of Polars": (pl.Series(names(), dtype=pl.Categorical), names()),
    "strings of Arrow": (pa.array(names()), names()),
    "chunked strings of Arrow": (pa.chunked_array([names()[:5], names()[5:]]), names()),
    "string views of Arrow": (pa.array(names(), pa.string_view()), names()),
    "a tuple": (tuple(names()), names()),
    "UUIDs": (uuids(), uuids()),
    "UUIDs as objects": (np.array(uuids(), object), uuids()),
    "UUIDs of pandas": (pd.Series(uuids()), uuids()),
    "UUIDs of Arrow": (pa.array([u.bytes for u in uuids()], pa.uuid()), uuids()),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_kind_work_everywhere(kind: str, rng: np.random.Generator) -> None:
    given, ids = IDS[kind]
    values = rng.standard_normal((N, DIM))
    index = omendb.Index(values, ids=given)
    assert index.ids.dtype == object
    assert index.ids.tolist() == ids
    assert type(index.ids[0]) is type(ids[0])
    assert index.search(values, 1).ids[:, 0].tolist() == ids
    assert index.search(values[3], 1).ids.tolist() == [ids[3]]
    assert index.search(values[:2], 3, filter=given[5:9]).ids.shape == (2, 3)
    assert set(index.search(values[0], 9, filter=[ids[7], ids[2]]).ids) == {ids[2], ids[7]}
    mask = index.ids == ids[4]
    assert index.search(values[0], 9, filter=mask).ids.tolist() == [ids[4]]
    within = index.search_radius(values[:2], 0.0)
    assert within.ids.tolist() == ids[:2]
    assert ids[4] in index
    index.update([ids[4]], values[5:6] + 100)
    assert index.search(values[5] + 100, 1).ids.tolist() == [ids[4]]
    index.remove(given[2:4])
    assert ids[2] not in index
    assert index.ids.tolist() == ids[:2] + ids[4:]
    for call in (index.remove, index.get, lambda ids: index.search(values, 1, filter=ids)):
        with pytest.raises(ValueError, match="not in the index") as caught:
            call([ids[5], ids[3]])
        assert str(ids[3]) in str(caught.value)
    again = index.add(values[2:4], ids=given[2:4])
    assert again.tolist() == ids[2:4]
    assert again.dtype == object
    with pytest.raises(ValueError, match="already"):
        index.add(values[:1], ids=ids[:1])
    with pytest.raises(ValueError, match="twice"):
        index.remove([ids[0], ids[0]])
    with pytest.raises(ValueError, match="give them, by ids="):
        index.add(values[:1])
    assert index.search(values[:1], 1, filter=[]).ids.shape == (1, 0)
    assert len(index) == N


def test_ids_of_the_wrong_kind_are_refused_or_not_there() -> None:
    eye = np.eye(3)
    text = omendb.Index(eye, ids=["a", "b", "c"])
    plain = omendb.Index(eye)
    wrong: list[tuple[omendb.Index, Any]] = [
        (text, [1]), (text, [uuids()[0]]), (text, [b"a"]), (text, "a"),
        (plain, ["a"]), (plain, uuids()[:1]),
    ]  # fmt: skip
    for index, ids in wrong:
        for call in (index.remove, index.get, lambda ids, index=index: index.add(eye[:1], ids=ids)):
            with pytest.raises(TypeError, match=r"(?i)strings|integers|one string"):
                call(ids)
        assert len(index) == 3
    for strange in (1, None, 1.0, b"a", ["a"], uuids()[0]):
        assert strange not in text
    mixed: list[tuple[type[Exception], str, Any]] = [
        (TypeError, "row 1", ["a", 1, "c"]),
        (TypeError, "row 2", [uuids()[0], uuids()[1], "c"]),
        (TypeError, "row 1", [1, "b", 3]),
        (ValueError, "row 1 .* is null", ["a", None, "c"]),
        (ValueError, "row 2 .* is null", pd.Series(["a", "b", pd.NA], dtype=object)),
        (ValueError, "row 0 .* is null", pa.array([None, "b", "c"])),
        (ValueError, "row 1 .* is null", pd.Series(["a", None, "c"], dtype="str")),
        (ValueError, "twice", ["a", "b", "a"]),
        (ValueError, "one id for each of 3", ["a", "b"]),
        (ValueError, "dimension", np.array([["a", "b", "c"]])),
        (TypeError, "integers, strings or UUIDs", pa.array([1.5, 2.5, 3.5])),
        (ValueError, "ids", ["a", "b", "\ud800"]),
    ]
    for kind, words, ids in mixed:
        with pytest.raises(kind, match=words):
            omendb.Index(eye, ids=ids)
        with pytest.raises(kind, match=words):
            text.add(eye, ids=ids)
    assert text.ids.tolist() == ["a", "b", "c"]


def test_an_empty_index_takes_ids_of_any_kind_and_keeps_to_it() -> None:
    index = omendb.Index(dim=2)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        index.add([[np.nan, 1.0]], ids=["x"])
    assert index.add([[1.0, 2.0]]).tolist() == [0]
    index.remove([0])
    assert index.add([[1.0, 2.0], [3.0, 4.0]], ids=["x", "y"]).tolist() == ["x", "y"]
    index.remove(["x", "y"])
    assert len(index) == 0
    assert index.ids.dtype == object
    with pytest.raises(TypeError, match="strings"):
        index.add([[1.0, 2.0]], ids=[1])
    assert index.add([[1.0, 2.0]], ids=["y"]).tolist() == ["y"]
    assert index.search([1.0, 2.0], 3).ids.tolist() == ["y"]


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_integer_ids_of_a_frame_keep_their_dtype(dtype: str, rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    top = np.iinfo(dtype).max
    ids = (top - 3 - np.arange(N, dtype=np.uint64)).astype(dtype)
    frames = [
        pd.DataFrame({"key": ids, "v": list(values)}),
        pl.DataFrame({"key": ids, "v": values}),
        pd.DataFrame({"v": list(values)}, index=pd.Index(ids, name="key")),
    ]
    for frame in frames:
        id = "key" if "key" in frame.columns else None
        index = omendb.Index.from_frame(frame, vector="v", id=id)
        assert index.ids.dtype == dtype
        np.testing.assert_array_equal(index.search(values, 1).ids[:, 0], ids)
        assert index.search(values[:1], 1).to_pandas()["key"].dtype == dtype
        assert int(ids[3]) in index
        assert np.array(ids[3]).item() in index
        assert top not in index
        assert -1 not in index
        np.testing.assert_array_equal(index.search(values[0], 2, filter=ids[:1]).ids, ids[:1])
        more = index.add(values[:2] + 50)
        np.testing.assert_array_equal(more, np.array([top - 2, top - 1], dtype))
        assert more.dtype == dtype
        with pytest.raises(ValueError, match="left"):
            index.add(values[:2])
        if dtype != "uint64":
            with pytest.raises(ValueError, match=r"\d"):
                index.add(values[:1], ids=[2**63 - 1 if dtype != "int64" else 2**63])
        index.remove(ids[:5])
        assert len(index) == N - 3


def test_the_index_of_a_pandas_frame_is_the_ids(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    frame = pd.DataFrame({"v": list(values), "size": sizes()})
    default = omendb.Index.from_frame(frame, vector="v")
    assert frame.loc[default.search(values[:2], 3).ids[1]]["size"].iloc[0] == 3
    assert default.ids.dtype == np.int64
    for labels in (names(), uuids(), range(100, 100 + N), range(0, 2 * N, 2)):
        frame.index = pd.Index(labels)
        index = omendb.Index.from_frame(frame, vector="v")
        hits = index.search(values[:2], 3)
        assert frame.loc[hits.ids[1]]["size"].iloc[0] == 3
        assert hits.to_pandas().columns[2] == "id"
    frame.index = pd.Index(names(), name="label")
    for id in (None, "label"):
        index = omendb.Index.from_frame(frame, vector="v", id=id)
        assert index.search(values[0], 1).to_pandas()["label"].tolist() == ["row 0 ü"]
    bad: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "'a' twice", ["a"] * N),
        (ValueError, "levels", pd.MultiIndex.from_arrays([names(), names()])),
        (TypeError, "datetime", pd.date_range("2020", periods=N)),
        (TypeError, "float", np.linspace(0, 1, N)),
    ]
    for kind, words, labels in bad:
        frame.index = labels
        with pytest.raises(kind, match=words) as caught:
            omendb.Index.from_frame(frame, vector="v")
        assert "reset_index" in str(caught.value)


# Metadata ---------------------------------------------------------------------------------


def rich() -> pa.Table:
    """A column of each type that is kept, with nulls."""
    day = datetime.date(2024, 2, 29)
    noon = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
    columns = {
        "bool": pa.array([True, None, False]),
        **{
            f"{t}": pa.array([1, None, 3], t)
            for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
        },
        **{f"{t}": pa.array([1, None, 3], t) for t in (pa.uint8(), pa.uint16(), pa.uint32())},
        "uint64": pa.array([2**64 - 1, None, 2**53 + 1], pa.uint64()),
        "half": pa.array(np.array([1.5, 2, 3], np.float16)),
        "float": pa.array([1.5, None, float("inf")], pa.float32()),
        "double": pa.array([1.5, None, -0.0], pa.float64()),
        "string": pa.array(["ä", None, ""]),
        "large_string": pa.array(["ä", None, ""], pa.large_string()),
        "string_view": pa.array(["ä" * 20, None, ""], pa.string_view()),
        "binary": pa.array([b"\xff", None, b""]),
        "fixed binary": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "date32": pa.array([day, None, day]),
        "date64": pa.array([day, None, day], pa.date64()),
        "time32": pa.array([noon.time().replace(microsecond=0), None, None], pa.time32("s")),
        "time64": pa.array([noon.time(), None, None], pa.time64("us")),
        "timestamp": pa.array([noon, None, noon], pa.timestamp("ns")),
        "zoned": pa.array([noon, None, noon], pa.timestamp("us", "Europe/Berlin")),
        "duration": pa.array([datetime.timedelta(1), None, None], pa.duration("ms")),
        "decimal": pa.array([decimal.Decimal("1.25"), None, None], pa.decimal128(7, 2)),
        "category": pa.array(["b", None, "b"]).dictionary_encode(),
        "numbers": pa.array([7, None, 9]).dictionary_encode(),
        "null": pa.nulls(3),
        "uuid": pa.array([uuids()[0].bytes, None, None], pa.uuid()),
        "naïve 'name'": pa.array([1, 2, 3]),
    }
    return pa.table({"v": fixed(np.eye(3)), "id": ["a", "b", "c"], **columns})


def test_metadata_comes_back_as_it_was(tmp_path: Path) -> None:
    table = rich()
    index = omendb.Index.from_frame(table, vector="v", id="id")
    path = tmp_path / "rich.omen"
    index.save(path)
    others = [
        index,
        omendb.Index.load(path),
        omendb.Index.load(path, verify=True),
        pickle.loads(pickle.dumps(index)),
        copy.copy(index),
        copy.deepcopy(index),
    ]
    for other in others:
        got = other.search(np.eye(3), 1).to_arrow()
        back = got.drop_columns(["query", "rank", "distance"])
        assert back.column_names == ["id", *table.column_names[2:]]
        for name in back.column_names:
            assert back[name].to_pylist() == table[name].to_pylist(), name
            kept, came = back.schema.field(name).type, table.schema.field(name).type
            if pa.types.is_dictionary(came):
                assert pa.types.is_dictionary(kept)
            elif not (pa.types.is_large_string(kept) or pa.types.is_large_binary(kept)):
                assert kept == came
        frame = other.search(np.eye(3), 1).to_pandas()
        assert frame["uint64"].iloc[0] == 2**64 - 1
        assert frame["uint64"].dtype == pd.UInt64Dtype()
        assert frame["bool"].dtype == pd.BooleanDtype()
        assert frame["category"].dtype == "category"
        assert str(frame["zoned"].dtype) == "datetime64[us, Europe/Berlin]"
        assert frame["uuid"].iloc[0] == uuids()[0]
        polars = other.search(np.eye(3), 1).to_polars()
        assert polars["string"].to_list() == ["ä", None, ""]
        assert polars["zoned"].dtype == pl.Datetime("us", "Europe/Berlin")
        assert isinstance(repr(other.search(np.eye(3), 1)), str)
        for hits in (other.search(np.eye(3), 1), other.search_radius(np.eye(3), 2)):
            assert pickle.loads(pickle.dumps(hits)).to_arrow().equals(hits.to_arrow())
        assert "and " in repr(other.get(["a"]))


def test_pandas_columns_of_every_kind_come_back(tmp_path: Path, rng: np.random.Generator) -> None:
    n = 9
    frame = pd.DataFrame(
        {
            "v": list(rng.standard_normal((n, 4))),
            "id": names(n),
            "flag": np.arange(n) % 2 == 0,
            "cat": pd.Categorical(["lo", "hi", "lo"] * 3, ["lo", "hi", "never"], ordered=True),
            "codes": pd.Categorical([3, 1, 2] * 3),
            "when": pd.date_range("2024-03-30", periods=n, freq="D", tz="Europe/Berlin"),
            "naive": pd.date_range("2024", periods=n),
            "took": pd.to_timedelta(np.arange(n), "s"),
            "missing": [None, "x", np.nan] * 3,
            "gap": np.where(np.arange(n) % 3 == 0, np.nan, 1.5),
            "Int": pd.array([1, None, 2**60 + 1] * 3, "Int64"),
        }
    )
    index = omendb.Index.from_frame(frame, vector="v", id="id")
    index.save(tmp_path / "x")
    expected = frame.drop(columns="v").iloc[::-1].reset_index(drop=True)
    for one in (index, omendb.Index.load(tmp_path / "x")):
        got = one.get(names(n)[::-1]).to_pandas()
        np.testing.assert_array_equal(np.stack(got.pop("v")), np.stack(frame["v"].iloc[::-1]))
        pd.testing.assert_frame_equal(got, expected, check_column_type=False, check_names=True)


def test_types_that_are_not_kept_are_named() -> None:
    for column in (
        pa.array([[1], [2], [3]]),
        pa.array([{"a": 1}] * 3),
        pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        pa.array([None] * 3, pa.month_day_nano_interval()),
        pa.array([decimal.Decimal(1)] * 3, pa.decimal256(50, 1)),
        fixed(np.eye(3)),
    ):
        table = pa.table({"v": fixed(np.eye(3)), "other ü": column})
        with pytest.raises(ValueError, match=r"'other ü'.*leave the column out"):
            omendb.Index.from_frame(table, vector="v")
    for odd in ([1, "a", None], [1, 2**70, None], [-(2**63) - 1, 1, 1]):
        mixed = pd.DataFrame({"v": list(np.eye(3)), "even": 2, "odd": pd.Series(odd, dtype=object)})
        with pytest.raises(ValueError, match=r"the column 'odd' holds .* make strings of it"):
            omendb.Index.from_frame(mixed, vector="v")


def test_columns_that_shadow_ours_are_kept_under_other_names(tmp_path: Path) -> None:
    names = [
        "query",
        "rank",
        "distance",
        "distance_1",
        "ids",
        "vectors",
        "codes",
        "omendb.id",
        "vector",
    ]
    columns = {name: [f"{name} {i}" for i in range(3)] for name in names}
    table = pa.table({"x": [0.0, 1, 2], "y": [0.0, 0, 0], "id": [5, 6, 7], **columns})
    index = omendb.Index.from_frame(table, vector=["x", "y"], id="id")
    index.save(tmp_path / "x")
    for one in (index, omendb.Index.load(tmp_path / "x"), pickle.loads(pickle.dumps(index))):
        frame = one.search([0.0, 0.0], 2).to_pandas()
        assert list(frame.columns) == [
            "query", "rank", "id", "distance",
            "query_1", "rank_1", "distance_2", "distance_1", "ids", "vectors", "codes", "omendb.id",
            "vector",
        ]  # fmt: skip
        assert frame["distance"].tolist() == [0.0, 1.0]
        assert frame["distance_2"].tolist() == ["distance 0", "distance 1"]
        assert frame["distance_1"].tolist() == ["distance_1 0", "distance_1 1"]
        records = pa.table(one)
        assert records.column_names == ["id", "vector_1", *names]
        assert records["vector"].to_pylist() == columns["vector"]
        assert records["vector_1"].to_pylist() == [[0, 0], [1, 0], [2, 0]]
    odd = omendb.Index.from_frame(table, vector=["x", "y"], id="rank").search([0.0, 0.0], 1)
    assert odd.ids.tolist() == ["rank 0"]
    assert odd.to_pandas().columns[:5].tolist() == ["query", "rank", "id", "distance", "id_1"]
    assert odd.to_pandas()["id"].tolist() == ["rank 0"]
    with pytest.raises(ValueError, match="say id='id'"):
        omendb.Index.from_frame(table, vector=["x", "y"])
    with pytest.raises(ValueError, match="say id='id'"):
        omendb.Index.from_frame(table.to_pandas(), vector=["x", "y"])


# Out --------------------------------------------------------------------------------------


def test_answers_become_frames_of_every_library(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM), dtype=np.float32)
    plain = omendb.Index(values, ids=np.arange(N) + 100)
    named = omendb.Index.from_frame(of_pandas(values), vector="v", id="name")
    queries = values[:3]
    for index, id in ((plain, "id"), (named, "name")):
        for hits in (
            index.search(queries, 4),
            index.search(queries[0], 4),
            index.search(queries, 4, filter=[]),
            index.search(queries[:0], 4),
            index.search_radius(queries, 3.0),
            index.search_radius(queries[0], 3.0),
            index.search_radius(queries, -1.0),
        ):
            ids, far = hits.to_numpy()
            assert ids is hits.ids
            assert far is hits.distances
            frame = hits.to_pandas()
            assert frame[id].tolist() == ids.ravel().tolist()
            assert frame["distance"].tolist() == far.ravel().tolist()
            assert frame["distance"].dtype == np.float32
            if isinstance(hits, omendb.RadiusHits):
                counts = np.diff(hits.offsets)
            else:
                counts = np.full(len(hits), ids.shape[-1])
            assert frame["query"].tolist() == np.repeat(np.arange(len(counts)), counts).tolist()
            assert frame["rank"].tolist() == [rank for count in counts for rank in range(count)]
            assert frame["query"].dtype == frame["rank"].dtype == np.int64
            arrow = hits.to_arrow()
            assert arrow.to_pydict() == hits.to_polars().to_dict(as_series=False)
            assert arrow.to_pandas().equals(frame)
            assert pa.table(hits).equals(arrow)
            assert pl.DataFrame(hits).equals(hits.to_polars())


def test_an_index_exports_its_live_rows(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    for dtype in ("float16", "float32", "float64", "int8", "uint8"):
        rows = (5 * values).astype(dtype)
        index = omendb.Index(rows)
        index.remove([3])
        table = pa.table(index)
        assert table.column_names == ["id", "vector"]
        assert table["id"].to_pylist() == [*range(3), *range(4, N)]
        back = np.array(table["vector"].to_pylist(), dtype)
        np.testing.assert_array_equal(back, np.delete(rows, 3, 0))
        again = omendb.Index.from_frame(table, vector="vector", id="id")
        np.testing.assert_array_equal(again.vectors, index.vectors)
        np.testing.assert_array_equal(again.ids, index.ids)
        records = index.get([7, 5, 7])
        assert len(records) == 3
        assert records.to_arrow()["id"].to_pylist() == [7, 5, 7]
        np.testing.assert_array_equal(np.stack(records.to_pandas()["vector"]), rows[[7, 5, 7]])
        assert len(index.get([])) == 0
    with pytest.raises(ValueError, match=r"\b3\b"):
        index.get([3])
    assert pa.table(omendb.Index(dim=3)).num_rows == 0


def test_tables_show_ids_and_metadata_and_are_escaped() -> None:
    nasty = "<script>alert('&')</script>"
    frame = pa.table(
        {
            "v": fixed(np.eye(3)),
            "key": [nasty, "b\nc", "d" * 200],
            "<b>col</b>": ["x\ty", nasty, None],
            **{f"more{i}": ["w" * 20] * 3 for i in range(20)},
        }
    )
    index = omendb.Index.from_frame(frame, vector="v", id="key")
    for shown in (
        index.search(np.eye(3), 2),
        index.search_radius(np.eye(3), 2.0),
        index.get([nasty]),
    ):
        html = shown._repr_html_()
        assert "<script>" not in html
        assert "<b>" not in html
        assert "&lt;script&gt;" in html
        lines = repr(shown).splitlines()
        assert max(map(len, lines)) <= 110
        assert "more columns" in lines[-1]
        assert "\t" not in repr(shown)
    assert "&lt;b&gt;" in index._repr_html_()
    assert "strings" in index._repr_html_()
    unique = omendb.Index(np.eye(3), ids=uuids(3)).search(np.eye(3), 1)
    assert str(uuids()[1])[:20] in repr(unique)
    assert str(uuids()[1]) in unique._repr_html_()


# Edits ------------------------------------------------------------------------------------


def test_frames_are_added_with_what_they_have(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM), dtype=np.float32)
    first = pl.DataFrame(
        {"name": names(), "v": values, "size": sizes(), "cat": ["a", "b"] * (N // 2)}
    )
    first = first.with_columns(pl.col("cat").cast(pl.Categorical), pl.lit(1.5).alias("x"))
    index = omendb.Index.from_frame(first, vector="v", id="name")
    new = values[:2] + 1
    frames: list[Frame] = [
        pl.DataFrame({"size": [7, 8], "v": new, "name": ["p", "q"]}),
        pd.DataFrame({"cat": ["b", "new"], "name": ["r", "s"], "v": list(new.astype(float))}),
        pa.table(
            {
                "name": ["t", "u"],
                "v": fixed(new),
                "x": pa.array([1, 2], pa.int32()),
                "size": [1.0, None],
            }
        ),
        pd.DataFrame({"name": ["w", "y"], "v": list(new), "size": [None, None], "x": [3, 4]}),
    ]
    for frame in frames:
        assert index.add_frame(frame).tolist() == list(
            frame["name"].to_pandas() if isinstance(frame, pa.Table) else frame["name"]
        )
    got = index.get(["p", "q", "r", "s", "t", "u", "w", "y"]).to_arrow().to_pydict()
    assert got["size"] == [7, 8, None, None, 1, None, None, None]
    assert got["cat"] == [None, None, "b", "new", None, None, None, None]
    assert got["x"] == [None] * 4 + [1.0, 2.0, 3.0, 4.0]
    before = pa.table(index)
    ok = {"name": ["z"], "v": fixed(new[:1])}
    bad: list[tuple[str, dict[str, Any]]] = [
        ("'size'.*Int64.*Utf8", {**ok, "size": ["a"]}),
        ("'size'.*cannot hold", {**ok, "size": [1.5]}),
        ("'x'.*Float64.*Boolean", {**ok, "x": [True]}),
        ("'unknown'.*size, cat, x", {**ok, "unknown": [1]}),
        ("no column 'v'", {"name": ["z"]}),
        ("no column 'name'", {"v": ok["v"]}),
        ("already", {**ok, "name": ["p"]}),
        ("twice", {"name": ["z", "z"], "v": fixed(new)}),
        ("dim", {"name": ["z"], "v": fixed(np.ones((1, 3)))}),
        ("(?i)nan", {"name": ["z"], "v": fixed(np.full((1, DIM), np.nan))}),
    ]  # fmt: skip
    for words, columns in bad:
        with pytest.raises(ValueError, match=words):
            index.add_frame(pa.table(columns))
        assert pa.table(index).equals(before)
    assert index.add_frame(pa.table(ok)).tolist() == ["z"]
    assert index.add(new[:1], ids=["zz"]).tolist() == ["zz"]
    assert index.get(["zz"]).to_arrow()["size"].to_pylist() == [None]
    for other in (omendb.Index(values), omendb.Index(values, ids=names())):
        with pytest.raises(ValueError, match="not made from a frame"):
            other.add_frame(first)


def test_categories_of_all_additions_are_one_dictionary(tmp_path: Path) -> None:
    def frame(first: int, categories: list[str]) -> pd.DataFrame:
        n = len(categories)
        column = pd.Categorical(categories, list(dict.fromkeys(["z", *categories])))
        v = list(np.arange(first, first + n, dtype=float)[:, None])
        return pd.DataFrame({"id": range(first, first + n), "v": v, "c": column})

    rows = [list("abca"), list("cd"), ["a"], list("eeb"), ["ü"] * 9, list("zab")]
    index, first = omendb.Index.from_frame(frame(0, rows[0]), vector="v", id="id"), 4
    for more in rows[1:]:
        index.add_frame(frame(first, more))
        first += len(more)
    index.remove([1, 5])
    expected = [c for i, c in enumerate("".join(map("".join, rows))) if i not in (1, 5)]
    index.save(tmp_path / "x")
    for one in (index, omendb.Index.load(tmp_path / "x"), pickle.loads(pickle.dumps(index))):
        got = one.get(one.ids).to_pandas()["c"]
        assert got.tolist() == expected
        assert list(got.cat.categories) == ["z", "a", "b", "c", "d", "e", "ü"]
        assert one.search([[3.0]], 1).to_polars()["c"].to_list() == ["a"]
        assert set(one.search([[0.0]], 99, where="c in ('a', 'ü')").to_pandas()["c"]) == {"a", "ü"}
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3]), pa.array(["a", "b", "a", None]))
    table = pa.table({"v": fixed(np.eye(4)), "c": twice})
    got = omendb.Index.from_frame(table, vector="v").get(range(4)).to_pandas()["c"]
    assert got.tolist()[:3] == ["a", "b", "a"]
    assert got.isna().tolist() == [False] * 3 + [True]
    assert list(got.cat.categories) == ["a", "b"]


def test_frames_without_ids_are_counted_on(rng: np.random.Generator) -> None:
    values = rng.standard_normal((N, DIM))
    index = omendb.Index.from_frame(pl.DataFrame({"v": values}), vector="v")
    assert index.add_frame(pl.DataFrame({"v": values[:2]})).tolist() == [N, N + 1]
    assert index.add_frame(pd.DataFrame({"v": list(values[:2])})).tolist() == [N + 2, N + 3]
    labelled = pd.DataFrame({"v": list(values[:2])}, index=[500, 400])
    assert index.add_frame(labelled).tolist() == [500, 400]
    assert index.add(values[:1]).tolist() == [501]
    block = omendb.Index.from_frame(pd.DataFrame(values), vector=list(range(DIM)))
    assert block.add_frame(pd.DataFrame(values[:3])).tolist() == [N, N + 1, N + 2]


def test_removed_lines_are_given_back(rng: np.random.Generator) -> None:
    values = rng.standard_normal((4000, 4), dtype=np.float32)
    frame = pl.DataFrame({"id": [f"{i:0100}" for i in range(4000)], "v": values, "n": range(4000)})
    index = omendb.Index.from_frame(frame, vector="v", id="id")
    full = index.nbytes
    for round in range(30):  # a window that moves on
        ids = index.ids[:500]
        index.remove(ids)
        index.add_frame(
            frame[:500].with_columns(id=pl.Series([f"{round}-{i:090}" for i in range(500)]))
        )
    assert index.nbytes < 2.5 * full
    assert len(index) == 4000
    assert index.get(index.ids[-2:]).to_arrow()["n"].to_pylist() == [498, 499]
    index.remove(index.ids[:-1])
    assert index.nbytes < full / 10


def test_many_small_additions_take_linear_time(rng: np.random.Generator) -> None:
    index = omendb.Index.from_frame(
        pa.table({"id": ["first"], "v": fixed(np.ones((1, 2))), "n": [-1]}), vector="v", id="id"
    )
    for i in range(300):
        index.add_frame(pa.table({"id": [f"{i}"], "v": fixed(np.full((1, 2), i)), "n": [i]}))
    assert index.search([7.0, 7.0], 1).to_pandas()["n"].tolist() == [7]
    assert pa.table(index)["n"].to_pylist() == list(range(-1, 300))


def test_answers_name_rows_that_come_and_go_meanwhile(rng: np.random.Generator) -> None:
    values = rng.standard_normal((2000, 8), dtype=np.float32)
    index = omendb.Index.from_frame(
        pl.DataFrame({"id": [f"{i}" for i in range(2000)], "v": values, "n": range(2000)}),
        vector="v", id="id",
    )  # fmt: skip
    stop = threading.Event()
    errors: list[BaseException] = []

    def edit() -> None:
        try:
            count = 2000
            while not stop.is_set():
                new = pl.DataFrame(
                    {
                        "id": [f"{count + i}" for i in range(50)],
                        "v": values[:50],
                        "n": range(count, count + 50),
                    }
                )
                index.add_frame(new)
                count += 50
                index.remove(index.ids[: len(index) - 900])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        for _ in range(60):
            hits = index.search(values[:200], 5)
            table = hits.to_arrow()
            assert [int(id) for id in hits.ids.ravel()] == table["n"].to_pylist()
            pickle.loads(pickle.dumps(index))
    finally:
        stop.set()
        thread.join()
    assert not errors


class Twin(RuleBasedStateMachine):
    """An index beside a plain pandas frame to which the same happens."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.folder = data.draw(st.integers(0, 2**32))
        self.rng = np.random.default_rng(self.folder)
        self.count = 0
        self.twin = self.fresh(data.draw(st.integers(0, 30)))
        frame = pl.from_pandas(self.twin.drop(columns="v"))
        frame = frame.with_columns(
            v=pl.Series(
                np.stack([*self.twin["v"], np.zeros(3)])[:-1], dtype=pl.Array(pl.Float64, 3)
            )
        )
        self.index = omendb.Index.from_frame(frame, vector="v", id="key")

    def fresh(self, n: int) -> pd.DataFrame:
        keys = [f"k{self.count + i}" for i in range(n)]
        self.count += n
        v = pd.Series(list(self.rng.integers(-9, 9, (n, 3)).astype(float)), dtype=object)
        n_column = pd.array(self.rng.integers(0, 5, n), "Int64")
        return pd.DataFrame({"key": pd.Series(keys, dtype="str"), "n": n_column, "v": v})

    def some(self, data: st.DataObject) -> list[str]:
        keys = self.twin["key"].tolist()
        return data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=len(keys)))

    @rule(n=st.integers(1, 20), known=st.booleans())
    def add(self, n: int, known: bool) -> None:
        new = self.fresh(n)
        if not known:
            new["n"] = pd.array([None] * n, "Int64")
            assert (
                self.index.add(np.stack(new["v"]), ids=new["key"]).tolist() == new["key"].tolist()
            )
        else:
            assert self.index.add_frame(new).tolist() == new["key"].tolist()
        self.twin = pd.concat([self.twin, new], ignore_index=True)

    @precondition(lambda self: len(self.twin) > 0)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        keys = self.some(data)
        self.index.remove(keys)
        self.twin = self.twin[~self.twin["key"].isin(keys)].reset_index(drop=True)

    @precondition(lambda self: len(self.twin) > 0)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        keys = self.some(data)
        new = self.rng.integers(-9, 9, (len(keys), 3)).astype(float)
        self.index.update(keys, new)
        for key, row in zip(keys, new, strict=True):
            self.twin.at[self.twin.index[self.twin["key"] == key][0], "v"] = row

    @rule(how=st.sampled_from(["file", "pickle"]))
    def leave_and_return(self, how: str) -> None:
        if how == "pickle":
            self.index = pickle.loads(pickle.dumps(self.index))
            return
        path = Path(f"twin-{self.folder}.omen")
        self.index.save(path)
        self.index = omendb.Index.load(path)
        path.unlink()

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        keys = self.some(data) if len(self.twin) else []
        got = self.index.get(keys).to_pandas()
        expected = self.twin.set_index("key").loc[keys].reset_index()
        assert got["key"].tolist() == keys
        assert got["n"].astype("Int64").equals(expected["n"])
        assert [list(row) for row in got["v"]] == [list(row) for row in expected["v"]]

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "index"):
            return
        keys = self.twin["key"].tolist()
        assert self.index.ids.tolist() == keys
        assert len(self.index) == len(keys)
        assert "k-1" not in self.index
        if keys:
            query = self.rng.integers(-9, 9, 3).astype(float)
            far = np.linalg.norm(np.stack(self.twin["v"]) - query, axis=1)
            order = np.argsort(far, kind="stable")[:4]
            frame = self.index.search(query, 4).to_pandas()
            assert frame["key"].tolist() == self.twin["key"].iloc[order].tolist()
            assert frame["n"].astype("Int64").tolist() == self.twin["n"].iloc[order].tolist()


def test_a_frame_to_which_the_same_happens_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_state_machine_as_test(
        Twin,
        settings=settings(max_examples=settings().max_examples // 4, stateful_step_count=15),
    )


# Conditions -------------------------------------------------------------------------------


def test_conditions_choose_the_rows_that_pandas_chooses(rng: np.random.Generator) -> None:
    n = 3000
    values = rng.standard_normal((n, 4), dtype=np.float32)
    frame = pd.DataFrame(
        {
            "id": [f"{i:04}" for i in range(n)],
            "size": rng.integers(0, 1000, n),
            "größe in %": pd.array(
                [None if rng.random() < 0.2 else rng.integers(9) for _ in range(n)], "Int64"
            ),
            "section": pd.Categorical(rng.choice(["games", "libs", "it's"], n)),
            "when": pd.date_range("2024", periods=n, freq="h"),
        }
    )
    loaded = frame.assign(v=list(values))
    index = omendb.Index.from_frame(loaded[:2500], vector="v", id="id")
    index.add_frame(loaded[2500:])
    gone = frame["id"][5:n:7]
    index.remove(gone)
    live = frame[~frame["id"].isin(gone)].reset_index(drop=True)
    great = live["größe in %"]
    cases = {
        "section == 'games' and size < 500": (live["section"] == "games") & (live["size"] < 500),
        "section = 'it''s' OR NOT size >= 20": (live["section"] == "it's") | (live["size"] < 20),
        "`größe in %` in (1, 2, 3)": great.isin([1, 2, 3]),
        '"größe in %" is null': great.isna(),
        "`größe in %` != 3": (great != 3).fillna(False),
        "size between 10 and 20": live["size"].between(10, 20),
        "id like '00%'": live["id"].str.startswith("00"),
        "id.str.startswith('29')": live["id"].str.startswith("29"),
        "when < '2024-02-01'": live["when"] < "2024-02-01",
        "size < 0": live["size"] < 0,
        "size >= 0": live["size"] >= 0,
    }
    odd = live["id"].str.endswith("1").to_numpy()
    queries = values[:3]
    for condition, mask in cases.items():
        mask = mask.to_numpy(bool)
        for options, both in (
            ({}, mask),
            ({"filter": odd}, mask & odd),
            ({"filter": live["id"][odd]}, mask & odd),
        ):
            hits = index.search(queries, 8, where=condition, **options)
            expected = index.search(queries, 8, filter=both)
            assert hits.ids.tolist() == expected.ids.tolist(), condition
            near = index.search_radius(queries, 1.5, where=condition, **options)
            again = index.search_radius(queries, 1.5, filter=both)
            assert near.ids.tolist() == again.ids.tolist(), condition
    index.build_graph()
    graph = index.search(queries, 8, where="size < 500", method="graph")
    assert (graph.to_pandas()["size"] < 500).all()
    index.remove(index.ids[: len(index) - 400])  # lines with gaps between their labels
    rest = index.search(queries, 400, where="size < 500").to_pandas()
    kept = index.get(index.ids).to_pandas()
    assert sorted(rest[rest["query"] == 0]["id"]) == sorted(kept[kept["size"] < 500]["id"])


def test_wrong_conditions_are_refused_with_what_there_is() -> None:
    table = pa.table(
        {"v": fixed(np.eye(3)), "n": [1, 2, 3], "s": ["a", "b", "c"], "ü": [1.0, 2, 3]}
    )
    index = omendb.Index.from_frame(table, vector="v")
    bad: list[tuple[str, str]] = [
        ("m = 1", "(?s)m.*n.*s.*ü"),
        ("n = 'a'", "n"),
        ("s < 3", "s"),
        ("", "(?i)condition|predicate|empty|expected"),
        ("n = 1; drop table x", "(?i)expected|;"),
        ("n = 1 -- and s = 'b'", "(?i)comment|-"),
        ("n = 1 union select 1", "(?i)union"),
        ("n = (select 1)", "(?i)select"),
        ("sleep(10) = 1", "(?i)sleep"),
        ("n = 1 or 1 = 1", "1"),
        ("__import__('os')", "(?i)import"),
        ("s = 'a", "(?i)quote|unterminated|end"),
        ("(" * 5000 + "n = 1" + ")" * 5000, "100"),
        ("n = 1 and", "(?i)end|expected"),
    ]
    for condition, words in bad:
        for search in (index.search, index.search_radius):
            with pytest.raises(ValueError, match=words):
                search(np.eye(3), 1, where=condition)
    wrong: Any = ["n = 1"]
    for call in (index.search, index.search_radius, index.explain):
        with pytest.raises(TypeError, match=r"^expected where= to be a text.*, got list$"):
            call(np.eye(3), 1, where=wrong)
        with pytest.raises(UnicodeEncodeError):
            call(np.eye(3), 1, where="s = '\ud800'")
    for other in (omendb.Index(np.eye(3)), omendb.Index(dim=3)):
        with pytest.raises(ValueError, match="from_frame"):
            other.search(np.eye(3), 1, where="n = 1")
    many = " or ".join(f"n == {i} and ü < {i}" for i in range(5000, 0, -1)) + " or n = 3"
    assert index.search(np.eye(3)[0], 9, where=many).ids.tolist() == [2]
    empty = omendb.Index.from_frame(table.slice(0, 0), vector="v")
    assert empty.search(np.eye(3), 1, where="n = 1").ids.shape == (3, 0)


# What is refused --------------------------------------------------------------------------


def _with(x: Array, row: int, value: Any) -> list[Any]:
    rows: list[Any] = x.tolist()
    rows[row] = value
    return rows


BAD_VECTORS: dict[str, tuple[str, Callable[[Array], list[Any]]]] = {
    "null row": ("row 3 .*'v' is null", lambda x: _with(x, 3, None)),
    "null inside": ("row 3 .*'v' is null at place 2", lambda x: _with(x, 3, [1.0, 2.0, None, 4.0])),
    "longer": ("one length.* 5 in row 3", lambda x: _with(x, 3, [1.0] * 5)),
    "shorter": ("one length.* 3 in row 3", lambda x: _with(x, 3, [1.0] * 3)),
    "empty": ("one length.* 0 in row 3", lambda x: _with(x, 3, [])),
    "NaN": ("row 3 .*(?i:nan)", lambda x: _with(x, 3, [1.0, 2.0, float("nan"), 4.0])),
    "infinity": ("row 3 .*inf", lambda x: _with(x, 3, [1.0, 2.0, float("inf"), 4.0])),
}


@pytest.mark.parametrize("dtype", ["str", "string", "string[pyarrow]"])
def test_a_frame_of_no_rows_says_of_what_kind_its_ids_are(dtype: Any) -> None:
    frame = pd.DataFrame(
        {"x": [1.0, 2.0], "y": [3.0, 4.0], "id": pd.Series(["a", "b"], dtype=dtype)}
    )
    labelled = frame.set_index("id")
    for one, id in ((frame, "id"), (labelled, None)):
        index = omendb.Index.from_frame(one[:0], vector=["x", "y"], id=id)
        index.add_frame(one)
        assert index.ids.tolist() == ["a", "b"]
    assert len(index.get([])) == len(index.get(np.array([], object))) == 0
    for none in (np.array([], object), pd.Series([], dtype=dtype)):
        for plain in (omendb.Index(np.eye(2)), omendb.Index(dim=2)):
            assert len(plain.get(none)) == len(plain.add(np.empty((0, 2)), ids=none)) == 0
            assert plain.add(np.eye(2)).dtype == np.int64


def test_metadata_of_any_kind_is_shown() -> None:
    """Also a null in what is called as distances are, and a zone that only other tables know."""
    times = pa.array([0, 10**15], pa.timestamp("us", "utc"))
    far = pa.array([None, 1e-9])
    table = pa.table({"v": fixed(np.eye(2)), "distance": far, "time": times})
    index = omendb.Index.from_frame(table, vector="v")
    first, second = repr(index.get([0, 1])).splitlines()[2:]
    assert "1970-01-01T00:00:00Z" in first
    assert "0.000000" not in first
    assert "1e-9" in second
    assert "2001-09-09T01:46:40Z" in repr(index.search([0.0, 1.0], 1))


def test_what_pandas_means_by_missing_names_its_row() -> None:
    rows = list(np.eye(3, 2))
    for missing in (None, np.nan, pd.NA, pd.NaT):
        frame = pd.DataFrame({"v": pd.Series([rows[0], missing, rows[2]], dtype=object)})
        with pytest.raises(ValueError, match="row 1 of the column 'v' is null"):
            omendb.Index.from_frame(frame, vector="v")
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "v": rows})
    for ids in (
        pd.array([7, None, 9], dtype="Int64"),
        pd.Categorical([7, None, 9]),
        pd.Categorical(["a", None, "c"]),
        pd.Series(["a", None, "c"], dtype="str"),
    ):
        with pytest.raises(ValueError, match="row 1 of the column 'n' is null"):
            omendb.Index.from_frame(frame.assign(n=ids), vector="v", id="n")
    for labels in (
        pd.Index(["a", None, "c"]),
        pd.Index([None, "b", None], dtype=object)[[1, 0, 2]],
        pd.Index([7, None, 9], dtype="Int64"),
        pd.CategoricalIndex(["a", None, "c"]),
    ):
        with pytest.raises(ValueError, match="row 1 of the frame's index is null"):
            omendb.Index.from_frame(frame.set_axis(labels), vector="v")
    for kind in ("Int64", "Float64", "Sparse[float]"):
        frame["y"] = pd.array([1, 2, None], dtype=kind)
        with pytest.raises(ValueError, match="row 2 of the column 'y' is null"):
            omendb.Index.from_frame(frame, vector=["x", "y"])


def test_cells_that_hold_no_vector_are_named() -> None:
    matrices = pd.DataFrame({"v": [np.eye(2), np.eye(2)]})
    with pytest.raises(TypeError, match="'v' to hold lists of numbers, got ndarray in row 0"):
        omendb.Index.from_frame(matrices, vector="v")


def test_cells_of_bfloat16_stay_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.eye(3).astype(ml_dtypes.bfloat16)
    index = omendb.Index.from_frame(pd.DataFrame({"v": list(rows)}), vector="v")
    assert index.vectors.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("case", BAD_VECTORS)
@pytest.mark.parametrize("library", ["pandas", "pandas Arrow", "Polars", "Arrow", "Arrow slice"])
def test_bad_vectors_name_their_row(case: str, library: str) -> None:
    words, change = BAD_VECTORS[case]
    rows = change(np.arange(24, dtype=float).reshape(6, 4))
    frame: Frame
    if library == "pandas":
        frame = pd.DataFrame({"v": pd.Series(rows, dtype=object)})
    elif library == "pandas Arrow":
        frame = pd.DataFrame({"v": pd.Series(rows, dtype=pd.ArrowDtype(pa.list_(pa.float64())))})
    elif library == "Polars":
        frame = pl.DataFrame({"v": rows})
    elif library == "Arrow":
        frame = pa.table({"v": rows})
    else:
        frame = pa.table({"v": [None, [1.0, None], *rows, None]}).slice(2, 6)
    with pytest.raises(ValueError, match=words):
        omendb.Index.from_frame(frame, vector="v")


def test_nulls_of_fixed_lists_name_their_row() -> None:
    kind = pa.list_(pa.float32(), 2)
    for rows, words in (
        ([[1, 2], None, [3, 4]], "row 1 .* is null"),
        ([[1, 2], [3, None], [3, 4]], "row 1 .* null at place 1"),
    ):
        table = pa.table({"v": pa.array([[9, None], *rows], kind)})
        with pytest.raises(ValueError, match=words):
            omendb.Index.from_frame(table.slice(1), vector="v")
        whole = pa.table({"v": pa.array([[1, 2], *rows[2:]], kind)})
        assert len(omendb.Index.from_frame(whole, vector="v")) == 2


def test_frames_of_no_rows() -> None:
    fixed_list = pa.table(
        {"v": pa.array([], pa.list_(pa.float32(), 3)), "n": pa.array([], pa.int8())}
    )
    index = omendb.Index.from_frame(fixed_list, vector="v")
    assert (len(index), index.dim) == (0, 3)
    assert index.search(np.ones(3), 2).to_pandas().columns.tolist() == [
        "query", "rank", "id", "distance", "n",
    ]  # fmt: skip
    assert index.add_frame(pa.table({"v": fixed(np.eye(3)), "n": [1, 2, 3]})).tolist() == [0, 1, 2]
    assert (
        omendb.Index.from_frame(pl.DataFrame(schema={"v": pl.Array(pl.Float32, 3)}), vector="v").dim
        == 3
    )
    block = pd.DataFrame({"x": np.empty(0), "y": np.empty(0)})
    assert omendb.Index.from_frame(block, vector=["x", "y"]).dim == 2
    for frame in (
        pa.table({"v": pa.array([], pa.list_(pa.float32()))}),
        pl.DataFrame(schema={"v": pl.List(pl.Float32)}),
        pd.DataFrame({"v": pd.Series([], dtype=object)}),
    ):
        with pytest.raises(ValueError, match="no rows to tell the length"):
            omendb.Index.from_frame(frame, vector="v")


def test_what_is_no_frame_or_has_not_the_columns_is_refused() -> None:
    eye = np.eye(3)
    table = pa.table({"v": fixed(eye), "n": [1, 2, 3], "s": ["a", "b", "c"], "ü": [1.0, 2, 3]})
    frames: list[Frame] = [table, pl.from_arrow(table), table.to_pandas()]
    for frame in frames:
        bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
            (ValueError, "no column 'w'.* v, n, s, ü", {"vector": "w"}),
            (ValueError, "no column 'w'.* v, n, s, ü", {"vector": "v", "id": "w"}),
            (ValueError, "no column 'w'", {"vector": ["n", "w"]}),
            (ValueError, "once|twice", {"vector": ["n", "n"]}),
            (ValueError, "none", {"vector": []}),
            (TypeError, "'n'.*lists.*several columns", {"vector": "n"}),
            (TypeError, "'s'.*lists of numbers", {"vector": "s"}),
            (TypeError, "'s'.*numbers", {"vector": ["n", "s"]}),
            (ValueError, "'v'", {"vector": "v", "id": "v"}),
            (TypeError, "(?i)integers, strings or UUIDs|float", {"vector": "v", "id": "ü"}),
            (ValueError, "metric", {"vector": "v", "metric": "no"}),
            (ValueError, "method", {"vector": "v", "method": "no"}),
            (ValueError, "threads", {"vector": "v", "threads": 0}),
        ]
        for kind, words, options in bad:
            with pytest.raises(kind, match=words):
                omendb.Index.from_frame(frame, **options)
    for duplicated in (
        pa.Table.from_arrays(
            [fixed(eye), pa.array([1, 2, 3]), pa.array([1, 2, 3])], ["v", "n", "n"]
        ),
        pd.DataFrame({"v": list(eye), "n": [1, 2, 3], "m": 3}).set_axis(["v", "n", "n"], axis=1),
    ):
        with pytest.raises(ValueError, match="two columns 'n'"):
            omendb.Index.from_frame(duplicated, vector="v")
    levels = pd.DataFrame(eye, columns=pd.MultiIndex.from_product([["a"], ["x", "y", "z"]]))
    with pytest.raises(ValueError, match="levels"):
        omendb.Index.from_frame(levels, vector="a")
    for nothing in (eye, [[1.0]], {"v": [1]}, None, 5, pl.LazyFrame({"v": [[1.0]]})):
        with pytest.raises(TypeError, match="expected a frame"):
            omendb.Index.from_frame(nothing, vector="v")
    with pytest.raises(TypeError):
        omendb.Index.from_frame(pa.array([1.0]), vector="v")
    for ids, words in (
        (["a", "a", "b"], "'a' is given twice"),
        (["a", None, "b"], "row 1 .* null"),
    ):
        for frame in (
            pa.table({"v": fixed(eye), "k": ids}),
            pl.DataFrame({"v": eye, "k": ids}),
            pd.DataFrame({"v": list(eye), "k": ids}),
        ):
            with pytest.raises(ValueError, match=words):
                omendb.Index.from_frame(frame, vector="v", id="k")


def test_a_file_whose_columns_do_not_belong_is_refused(tmp_path: Path) -> None:
    index = omendb.Index(np.eye(3), ids=["a", "b", "c"])
    path = tmp_path / "x.omen"
    index.save(path)
    data = path.read_bytes()
    assert omendb.Index.load(path).ids.tolist() == ["a", "b", "c"]
    assert data.count(b"abc") == 1
    path.write_bytes(data.replace(b"abc", b"abb"))
    with pytest.raises(ValueError, match="id"):
        omendb.Index.load(path)


# Without pyarrow --------------------------------------------------------------------------


def test_vectors_and_ids_need_no_pyarrow() -> None:
    script = """
import sys
sys.modules["pyarrow"] = None
import numpy as np, pandas as pd, polars as pl, omendb
frame = pd.DataFrame({"v": list(np.eye(3)), "key": ["a", "b", "c"]})
index = omendb.Index.from_frame(frame, vector="v", id="key")
hits = index.search(np.eye(3), 2)
assert hits.to_pandas()["key"].tolist() == hits.ids.ravel().tolist()
assert index.search_radius(np.eye(3), 0.5).to_pandas()["query"].tolist() == [0, 1, 2]
assert hits.to_polars()["key"].to_list() == hits.ids.ravel().tolist()
assert omendb.Index(np.eye(3)).search(np.eye(3), 1).to_pandas()["id"].tolist() == [0, 1, 2]
renamed = omendb.Index.from_frame(frame.rename(columns={"key": "rank"}), vector="v", id="rank")
answers = renamed.search(np.eye(3), 1).to_pandas()
assert (answers["id"].tolist(), answers["rank"].tolist()) == (["a", "b", "c"], [0, 0, 0])
for call in (hits.to_arrow, index.get(["a"]).to_pandas):
    try:
        call()
    except ImportError as error:
        assert "pip install pyarrow" in str(error)
    else:
        raise AssertionError
frame["n"] = [1, 2, 3]
try:
    omendb.Index.from_frame(frame, vector="v", id="key")
except ImportError as error:
    assert "(n)" in str(error) and "pyarrow" in str(error)
else:
    raise AssertionError
rich = omendb.Index.from_frame(pl.DataFrame({"v": np.eye(3), "n": [1, 2, 3]}), vector="v")
assert rich.search(np.eye(3), 1).to_polars()["n"].to_list() == [1, 2, 3]
assert not sys.modules["pyarrow"]
"""
    run_python(script)


def test_frames_import_no_library() -> None:
    script = """
import sys, omendb.frames
assert not {"pandas", "polars", "pyarrow"} & set(sys.modules), sys.modules
"""
    run_python(script)


# What must not be taken for something else ---------------------------------------------------


def test_an_order_of_categories_is_refused_rather_than_ignored(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    rows, levels = rng.standard_normal((6, 4)), ["low", "medium", "high"]
    values = ["low", "high", "medium"] * 2
    ordered = pd.DataFrame({"v": list(rows), "p": pd.Categorical(values, levels, ordered=True)})
    listed = pl.DataFrame({"v": rows, "p": pl.Series(values, dtype=pl.Enum(levels))})
    for frame in (ordered, listed):
        index = omendb.Index.from_frame(frame, vector="v")
        index.save(tmp_path / "x.omen")
        loaded = omendb.Index.load(tmp_path / "x.omen")
        for again in (index, loaded, pickle.loads(pickle.dumps(index))):
            for condition in ("p >= 'medium'", "'low' < p", "not p between 'a' and 'b'", "p < p"):
                with pytest.raises(ValueError, match="an order of their own"):
                    again.search(rows, where=condition)
            hits = again.search(rows[0], 6, where="p in ('low', 'high')")
            assert sorted(hits.ids) == [0, 1, 3, 4]
    plain = omendb.Index.from_frame(ordered.astype({"p": "category"}).assign(p=values), vector="v")
    assert sorted(plain.search(rows[0], 6, where="p >= 'low'").ids) == [0, 2, 3, 5]


@pytest.mark.parametrize("dtype", ["bool", "boolean", "bool[pyarrow]", "object"])
def test_booleans_of_pandas_mean_rows_by_their_labels(dtype: str, rng: np.random.Generator) -> None:
    frame = pd.DataFrame({"size": [5, 1, 4, 2, 3, 6], "v": list(rng.standard_normal((6, 4)))})
    query, shuffled = frame["v"][0], frame.sort_values("size")
    index = omendb.Index.from_frame(frame, vector="v")
    for mask in (frame["size"] >= 4, shuffled["size"] >= 4):
        hits = index.search(query, 6, filter=mask.astype(dtype))
        assert sorted(frame.loc[hits.ids, "size"]) == [4, 5, 6]
    # Labels that are not the ids say nothing of them: places count.
    named = omendb.Index.from_frame(frame.assign(name=list("uvwxyz")), vector="v", id="name")
    hits = named.search(query, 6, filter=frame["size"] >= 4)
    assert sorted(hits.ids) == ["u", "w", "z"]


@pytest.mark.parametrize("missing", [None, pd.NA, np.nan])
def test_objects_are_a_mask_where_all_are_booleans(missing: Any) -> None:
    mask = booleans(np.array([True, np.False_, True], object))
    assert (mask.dtype, mask.tolist()) == (np.dtype(bool), [True, False, True])
    with pytest.raises(ValueError, match=rf"row 1 of the filter is {missing!r}.*fillna\(False\)"):
        booleans(np.array([True, missing, None], object))
    for others in ([1, 0], ["a", missing], []):
        values = np.array(others, object)
        assert booleans(values) is values


def test_labels_that_are_the_ids_by_chance_say_nothing_of_rows(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((8, 4))
    frame = pd.DataFrame({"doc": np.arange(8), "v": list(rows), "year": np.arange(2000, 2008)})
    frame = frame.sample(frac=1, random_state=0)
    for name in ("doc", "id"):
        # The rows are counted anew, while the ids stand in a column.
        counted = frame.rename(columns={"doc": name}).reset_index(drop=True)
        index = omendb.Index.from_frame(counted, vector="v", id=name)
        hits = index.search(rows[0], 8, filter=counted["year"] >= 2006)
        assert sorted(hits.ids) == [6, 7]
        # Under the name of the ids, labels are ids.
        labelled = counted.sort_values("year").set_index(name)
        hits = index.search(rows[0], 8, filter=labelled["year"] >= 2006)
        assert sorted(hits.ids) == [6, 7]
    # In an order of their own, under another name.
    shuffled = counted.sample(frac=1, random_state=1)
    index = omendb.Index.from_frame(shuffled.rename(columns={"id": "doc"}), vector="v", id="doc")
    assert sorted(index.search(rows[0], 8, filter=shuffled["year"] >= 2006).ids) == [6, 7]


@pytest.mark.parametrize("labels", ["int64", "Int64", "object", "int64[pyarrow]", "uint8"])
def test_integers_as_labels_mean_ids_of_an_index_with_its_own(labels: str) -> None:
    ids = np.arange(100, 108)
    flags = pd.Series(np.isin(ids, [101, 103])[::-1], index=pd.Index(ids[::-1]).astype(labels))
    frame = pd.DataFrame({"v": list(np.eye(8))}, index=pd.Index(ids).astype(labels))
    for index in (
        omendb.Index(np.eye(8), ids=ids),
        omendb.Index.from_frame(frame, vector="v"),
    ):
        assert sorted(index.search(np.ones(8), 8, filter=flags).ids) == [101, 103]
    # Numbers that the index gave itself count rows, as positions do.
    counted = omendb.Index(np.eye(8))
    assert sorted(counted.search(np.ones(8), 8, filter=flags).ids) == [4, 6]


def test_a_filter_with_missing_values_is_refused() -> None:
    frame = pd.DataFrame({"v": list(np.eye(4)), "name": list("abcd")})
    masks = [
        pd.Series([True, None, False, True], dtype="boolean"),
        pd.Series([True, None, False, True], dtype="bool[pyarrow]"),
        pl.Series([True, None, False, True]),
        [True, None, False, True],
    ]
    for index in (omendb.Index(np.eye(4)), omendb.Index.from_frame(frame, vector="v", id="name")):
        for mask in masks:
            with pytest.raises(ValueError, match="row 1 of the filter is"):
                index.search(np.ones(4), filter=mask)


def test_what_polars_does_not_export_is_refused_by_name() -> None:
    rows = np.eye(3)
    columns = {
        "Object": pl.Series([uuid.uuid4() for _ in range(3)], dtype=pl.Object),
        "Null": pl.Series([None] * 3),
        "Int128": pl.Series([1, 2, 3], dtype=pl.Int128),
        "List(Null)": pl.Series([[None]] * 3),
    }
    for kind, column in columns.items():
        with pytest.raises(TypeError, match=rf"column 'other' .* {re.escape(kind)}"):
            omendb.Index.from_frame(pl.DataFrame({"v": rows, "other": column}), vector="v")
    with pytest.raises(TypeError, match="collect"):
        omendb.Index.from_frame(pl.DataFrame({"v": rows}).lazy(), vector="v")


def test_ids_that_were_given_are_not_given_again(tmp_path: Path) -> None:
    frame = pd.DataFrame({"v": list(np.eye(3)), "name": list("abc")})
    index = omendb.Index.from_frame(frame, vector="v")
    index.remove([2])
    index.save(tmp_path / "x.omen")
    loaded = omendb.Index.load(tmp_path / "x.omen")
    loaded.save(tmp_path / "y.omen")
    others = (loaded, omendb.Index.load(tmp_path / "y.omen"), copy.copy(index))
    for again in (*others, pickle.loads(pickle.dumps(index)), index):
        assert again.add(np.ones((1, 3))).tolist() == [3]
    # A note that only the file has.
    assert b"next_line" not in b"".join(pa.table(loaded).schema.metadata or {})


def test_uuids_of_arrow_in_pandas_are_ids() -> None:
    ids = [uuid.UUID(int=i) for i in range(3)]
    column = pa.array([id.bytes for id in ids], pa.uuid())
    frame = pd.DataFrame(
        {"v": list(np.eye(3)), "key": pd.Series(column, dtype=pd.ArrowDtype(pa.uuid()))}
    )
    index = omendb.Index.from_frame(frame, vector="v", id="key")
    assert index.ids.tolist() == ids


def test_integers_beyond_63_bits_are_found_in_lists() -> None:
    ids = np.array([2**63 + 5, 3], np.uint64)
    frame = pd.DataFrame({"v": list(np.eye(2)), "key": ids})
    index = omendb.Index.from_frame(frame, vector="v", id="key")
    for given in (ids, ids.tolist(), ids.astype(object)):
        assert index.get(given).to_pandas()["key"].tolist() == ids.tolist()
    with pytest.raises(TypeError, match="integers"):
        index.get(ids.astype(np.float64))
    index.remove([2**63 + 5])
    assert index.ids.tolist() == [3]


def test_lists_of_booleans_are_numbers_as_those_of_numpy() -> None:
    flags = [[True, False], [False, False]]
    index = omendb.Index.from_frame(pa.table({"v": pa.array(flags)}), vector="v")
    assert index.vectors.dtype == omendb.Index(np.array(flags)).vectors.dtype
    index.add([[0.5, 1.0]])


def test_frames_are_read_whole_while_rows_come_and_go() -> None:
    rows = np.eye(4, dtype=np.float32)
    index = omendb.Index.from_frame(pd.DataFrame({"v": list(rows), "n": range(4)}), vector="v")

    def edit(turn: int) -> None:
        ids = list(range(4 + 1500 * turn, 4 + 1500 * (turn + 1)))
        block = np.full((1500, 4), 2, np.float32)
        index.add_frame(pd.DataFrame({"v": list(block), "n": ids}, index=ids))
        index.remove(ids)

    def read(_: int) -> None:
        table = pa.table(index)
        assert table["id"].to_pylist() == table["n"].to_pylist()
        assert len(pickle.loads(pickle.dumps(index))) >= 4

    run_for(4, edit, read, read)
