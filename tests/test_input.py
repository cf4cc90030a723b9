"""What may be handed in, what is borrowed, and what is refused with which words."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import DTYPES, METRICS, Array, cast, dtype_of, nearest, run_python

import omendb


def assert_holds(index: omendb.Index, values: Array) -> None:
    """The index holds these numbers, natively laid out, and answers like the twin."""
    assert index.vectors.flags.c_contiguous
    assert index.vectors.dtype.isnative
    np.testing.assert_array_equal(index.vectors, values)
    assert index.vectors.dtype == values.dtype
    if len(values):
        wide = values[:3].astype(np.float64)
        hits = index.search(wide, 5)
        ids, far = nearest(index.metric, wide, values, 5)
        np.testing.assert_array_equal(hits.ids, ids)
        np.testing.assert_array_equal(hits.distances, far)


def values_in(dtype: str, rng: np.random.Generator, n: int = 40, dim: int = 6) -> Array:
    """Random rows of a dtype."""
    return cast(rng.standard_normal((n, dim)), dtype)


# Layouts ----------------------------------------------------------------------------------


class Subclass(np.ndarray[Any, Any]):
    """An array of another class."""


def _misaligned(x: Array, _: Path) -> Array:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return raw[1:].view(x.dtype).reshape(x.shape)


def _memmap(x: Array, folder: Path) -> Array:
    path = folder / "x.raw"
    path.write_bytes(x.tobytes())
    return np.memmap(path, x.dtype, "r", shape=x.shape)


def _read_only(x: Array, _: Path) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def _middle(x: Array, _: Path) -> Array:
    block = np.zeros((3 * len(x), x.shape[1]), x.dtype)
    block[len(x) : 2 * len(x)] = x
    return block[len(x) : 2 * len(x)]


def _strided(x: Array, _: Path) -> Array:
    wide = np.zeros((2 * len(x), 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    return wide[::2, ::3]


# Layout -> how to get an array equal to x in it, and whether it can be borrowed.
LAYOUTS: dict[str, tuple[Callable[[Array, Path], Array], bool]] = {
    "C": (lambda x, _: x, True),
    "rows of a larger block": (_middle, True),
    "read-only": (_read_only, True),
    "memmap": (_memmap, True),
    "subclass": (lambda x, _: x.copy().view(Subclass), True),
    "F": (lambda x, _: np.asfortranarray(x), False),
    "strided": (_strided, False),
    "every other row": (lambda x, _: np.repeat(x, 2, axis=0)[::2], False),
    "negative rows": (lambda x, _: x[::-1].copy()[::-1], False),
    "negative columns": (lambda x, _: x[:, ::-1].copy()[:, ::-1], False),
    "misaligned": (_misaligned, False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_is_taken_and_contiguous_ones_are_borrowed(
    dtype: str, layout: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    lay, borrowed = LAYOUTS[layout]
    values = values_in(dtype, rng)
    given = lay(values, tmp_path)
    if given.flags.c_contiguous and given.flags.aligned:
        borrowed = True  # a misaligned byte is not misaligned
    before = given.copy()
    for metric in METRICS:
        index = omendb.Index(given, metric=metric)
        assert_holds(index, values)
        assert np.shares_memory(index.vectors, given) == borrowed
        # Queries, added and updated rows come in every layout too.
        hits, plain = index.search(given, 3), index.search(values, 3)
        np.testing.assert_array_equal(hits.ids, plain.ids)
        np.testing.assert_array_equal(hits.distances, plain.distances)
        index.add(given)
        index.update(np.arange(len(values))[::-1], given)
        np.testing.assert_array_equal(index.vectors, np.concatenate([values[::-1], values]))
    np.testing.assert_array_equal(given, before)
    assert not np.shares_memory(omendb.Index(given, copy=True).vectors, given)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_byte_order_is_converted_once(
    dtype: str, layout: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    values = rng.standard_normal((40, 6)).astype(dtype)
    given = LAYOUTS[layout][0](values.astype(">" + dtype), tmp_path)
    index = omendb.Index(given)
    assert_holds(index, values)
    assert not np.shares_memory(index.vectors, given)
    np.testing.assert_array_equal(index.search(given, 1).distances[:, 0], 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_rows_are_converted(dtype: str, rng: np.random.Generator) -> None:
    row = values_in(dtype, rng, 1)
    given = np.broadcast_to(row, (30, 6))
    assert_holds(omendb.Index(given), np.ascontiguousarray(given))
    column = np.broadcast_to(values_in(dtype, rng, 30, 1), (30, 6))
    assert_holds(omendb.Index(column), np.ascontiguousarray(column))


@pytest.mark.parametrize(
    "dtype", ["i2", "i4", "i8", "u2", "u4", "u8", "?", ">i2", ">i4", ">i8", ">u8"]
)
def test_other_integers_and_bools_become_float64(dtype: str, rng: np.random.Generator) -> None:
    given = rng.integers(0, 2 if dtype == "?" else 100, (30, 5)).astype(dtype)
    for each in (given, np.asfortranarray(given), given[::-2]):
        assert_holds(omendb.Index(each), np.ascontiguousarray(each, np.float64))
    index = omendb.Index(given.astype(np.float64))
    np.testing.assert_array_equal(index.search(given, 1).distances, 0)


def test_lists_and_objects_become_float64(rng: np.random.Generator) -> None:
    values = rng.standard_normal((20, 4))
    wild = np.array([[True, 2, np.float32(0.5), 1e-3]] * 3, object)
    for given, expected in (
        (values.tolist(), values),
        (tuple(map(tuple, values)), values),
        (list(values), values),
        (values.astype(object), values),
        (np.asfortranarray(values.astype(object)), values),
        (wild, wild.astype(np.float64)),
        ([[1, 2], [3, 4]], np.array([[1.0, 2.0], [3.0, 4.0]])),
        ([[True, False]], np.array([[1.0, 0.0]])),
    ):
        index = omendb.Index(given)
        assert_holds(index, expected)
        np.testing.assert_array_equal(index.search(given, 1).distances, 0)
    assert omendb.Index(values).search(values[0].tolist(), 1).ids.tolist() == [0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array_protocol_object_is_taken(dtype: str, rng: np.random.Generator) -> None:
    values = rng.standard_normal((20, 4)).astype(dtype)

    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            return values if dtype is None else values.astype(dtype)

    assert_holds(omendb.Index(Wrapped()), values)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_a_pandas_frame_is_taken(dtype: str, rng: np.random.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    values = (100 * rng.standard_normal((20, 4))).astype(dtype)
    frame = pandas.DataFrame(values, columns=list("abcd"), index=range(100, 120))
    expected = values.astype(np.float64) if dtype == "int64" else values
    index = omendb.Index(frame, ids=frame.index)
    np.testing.assert_array_equal(index.vectors, expected)
    np.testing.assert_array_equal(index.ids, np.arange(100, 120))
    hits = index.search(frame.iloc[:3], 2, filter=frame["a"] > -1e9)
    np.testing.assert_array_equal(hits.ids[:, 0], [100, 101, 102])
    mixed = frame.assign(a=frame["a"].astype(np.float32), b=frame["b"].astype(np.float64))
    np.testing.assert_array_equal(
        omendb.Index(mixed).vectors, mixed.to_numpy().astype(np.float64, copy=False)
    )
    with pytest.raises((TypeError, ValueError)):
        omendb.Index(frame.assign(name="text"))


def test_a_polars_frame_is_taken(rng: np.random.Generator) -> None:
    polars = pytest.importorskip("polars")
    for dtype in ("float32", "float64"):
        values = rng.standard_normal((20, 4)).astype(dtype)
        frame = polars.DataFrame({str(i): values[:, i] for i in range(4)})
        index = omendb.Index(frame, ids=polars.Series(range(20)))
        assert_holds(index, values)
        np.testing.assert_array_equal(index.search(frame, 1).ids[:, 0], np.arange(20))


# DLPack -----------------------------------------------------------------------------------


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ManagedTensor))
_ManagedTensor._fields_ = (
    ("tensor", _Tensor),
    ("context", ctypes.c_void_p),
    ("deleter", _Deleter),
)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)

_CODES = {"float": 2, "bfloat": 4, "int": 0, "uint": 1, "complex": 5, "bool": 6}


# What capsules point to is kept to the end: a late deleter must not meet freed memory.
_kept: list[Any] = []


class Loans:
    """The capsules that a tensor has handed out, and what became of each."""

    def __init__(self) -> None:
        self.lent: list[tuple[int, object]] = []  # address and capsule
        self.deleted: list[int] = []

    def assert_settled(self) -> None:
        """A consumed capsule's tensor is deleted once; one that nobody consumed, never."""
        gc.collect()
        used = [address for address, capsule in self.lent if not _is_capsule(capsule, b"dltensor")]
        assert sorted(self.deleted) == sorted(used)


class LikeTorch:
    """A tensor that speaks DLPack alone, as torch's bfloat16 ones do.

    `strides` counts elements; `offset` skips elements at the start of `array`'s memory.
    """

    def __init__(
        self,
        array: Array,
        kind: tuple[str, int],
        device: int = 1,
        shape: tuple[int, ...] | None = None,
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> None:
        self.array, self.kind, self.device, self.offset = array, kind, device, offset
        self.shape = array.shape if shape is None else shape
        self.strides = strides
        self.loans = Loans()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)

    def __dlpack__(self, **_: Any) -> object:
        ndim = len(self.shape)
        shape = (ctypes.c_int64 * ndim)(*self.shape)
        strides = None if self.strides is None else (ctypes.c_int64 * ndim)(*self.strides)
        managed = _ManagedTensor()
        address = ctypes.addressof(managed)
        tensor = managed.tensor
        tensor.data = self.array.ctypes.data
        tensor.device_type, tensor.ndim = self.device, ndim
        tensor.code, tensor.bits, tensor.lanes = _CODES[self.kind[0]], self.kind[1], 1
        tensor.shape = ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64))
        if strides is not None:
            tensor.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
        tensor.byte_offset = self.offset * self.kind[1] // 8
        deleted = self.loans.deleted
        managed.deleter = _Deleter(lambda _: deleted.append(address))
        capsule: object = _new_capsule(address, b"dltensor", None)
        self.loans.lent.append((address, capsule))
        _kept.append((managed, self.array, shape, strides))
        return capsule


_DLPACK_KINDS = {
    "float32": ("float", 32),
    "float64": ("float", 64),
    "float16": ("float", 16),
    "bfloat16": ("bfloat", 16),
    "int8": ("int", 8),
    "uint8": ("uint", 8),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dlpack_tensor_is_borrowed_and_given_back(dtype: str, rng: np.random.Generator) -> None:
    values = values_in(dtype, rng)
    given = LikeTorch(values.copy(), _DLPACK_KINDS[dtype])
    address, loans = given.array.ctypes.data, given.loans
    index = omendb.Index(given)
    assert loans.lent
    del given  # the index alone keeps the memory now
    gc.collect()
    assert_holds(index, values)
    vectors = index.vectors
    assert vectors.ctypes.data == address
    del index
    gc.collect()
    np.testing.assert_array_equal(vectors, values)  # and then the array that came from it
    assert not loans.deleted
    del vectors
    loans.assert_settled()
    assert loans.deleted


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_strided_dlpack_tensor_is_read_rightly(dtype: str, rng: np.random.Generator) -> None:
    values = values_in(dtype, rng, 41, 6)
    kind = _DLPACK_KINDS[dtype]
    for shape, strides, offset, expected in (
        ((41, 6), (6, 1), 0, values),
        ((40, 6), (6, 1), 6, values[1:]),
        ((40, 6), None, 6, values[1:]),
        ((6, 41), (1, 6), 0, values.T),
        ((20, 2), (12, 3), 1, values[:40:2, 1::3]),
        ((30, 6), (0, 1), 0, np.broadcast_to(values[0], (30, 6))),
        ((1, 6), (99, 1), 0, values[:1]),
        ((0, 6), None, 0, values[:0]),
    ):
        given = LikeTorch(values, kind, shape=shape, strides=strides, offset=offset)
        index = omendb.Index(given)
        assert_holds(index, np.ascontiguousarray(expected))
        hits = index.search(given, 1)
        assert hits.ids.shape == (shape[0], min(1, shape[0]))
        np.testing.assert_array_equal(
            hits.ids,
            nearest("euclidean", np.ascontiguousarray(expected), index.vectors, 1)[0],
        )
        del index
        given.loans.assert_settled()
        assert given.loans.deleted


def test_a_dlpack_tensor_that_cannot_be_used_is_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 4)).astype(np.float32)
    for given in (
        LikeTorch(x, ("float", 32), device=2),  # on a GPU: the address means nothing here
        LikeTorch(x, ("complex", 64), shape=(3, 4)),
        LikeTorch(x, ("float", 32), shape=(2, 3, 4)),
        LikeTorch(x, ("float", 32), shape=(24,)),
        LikeTorch(x, ("float", 32), shape=()),
        LikeTorch(x, ("float", 32), shape=(6, 0)),
    ):
        with pytest.raises((TypeError, ValueError)):
            omendb.Index(given)
        given.loans.assert_settled()

    class Liar(LikeTorch):
        def __dlpack__(self, **_: Any) -> object:
            return "not a capsule"

    with pytest.raises((TypeError, ValueError)):
        omendb.Index(Liar(x, ("float", 32)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_nan_in_a_dlpack_tensor_is_refused(dtype: str) -> None:
    values = np.ones((9, 4)).astype(dtype_of(dtype))
    values[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"\b5\b"):
        omendb.Index(LikeTorch(values, _DLPACK_KINDS[dtype]))


# Memory -----------------------------------------------------------------------------------

_GROWTH = """
import gc, resource, sys
import ml_dtypes, numpy as np, omendb, reference

def resident():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

dtype = reference.dtype_of(sys.argv[1])
rng = np.random.default_rng(1)
X = np.empty((60_000, 384), dtype)
mix = rng.standard_normal((24, 384)).astype(np.float32)
for start in range(0, 60_000, 5000):
    block = rng.standard_normal((5000, 24)).astype(np.float32) @ mix
    block += 0.1 * rng.standard_normal((5000, 384)).astype(np.float32)
    X[start : start + 5000] = 4 * block
omendb.Index(X[:2000]).search(X[:10], 10)
before = resident()
index = omendb.Index(X, metric=sys.argv[2])
growth = resident() - before
assert np.shares_memory(index.vectors, X)
index.search(X[:10], 10)
print(growth / (60_000 * 384 * 4))
"""


@pytest.mark.parametrize(
    ("dtype", "metric"),
    [
        ("float32", "cosine"),
        ("float32", "euclidean"),
        ("float16", "inner_product"),
        ("float64", "euclidean"),
        ("bfloat16", "cosine"),
        ("int8", "euclidean"),
    ],
)
def test_an_index_adds_at_most_0_30_of_the_float32_bytes(dtype: str, metric: str) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    assert float(run_python(_GROWTH, dtype, metric)) <= 0.30


# Refused ----------------------------------------------------------------------------------


def _index() -> omendb.Index:
    return omendb.Index(np.arange(20.0, dtype=np.float32).reshape(5, 4), ids=[10, 11, 12, 13, 14])


def _with(value: float, row: int, n: int = 9, dtype: str = "float32") -> Array:
    x = np.ones((n, 4), dtype_of(dtype))
    x[row, 2] = value
    return x


ones = np.ones((3, 4), np.float32)
REAL_TYPES: list[tuple[str, Any]] = [
    ("complex", np.ones((3, 4), complex)),
    ("complex", np.ones((3, 4), np.complex64)),
    ("complex", [[1j, 2, 3, 4]]),
    ("str|<U", np.full((3, 4), "1.5")),
    ("str|<U", [["a", "b", "c", "d"]]),
    ("bytes|S", np.full((3, 4), b"1.5")),
    ("datetime|M8", np.zeros((3, 4), "M8[s]")),
    ("timedelta|m8", np.zeros((3, 4), "m8[s]")),
    ("void|V", np.zeros((3, 4), "V8")),
    ("f0|void|struct", np.zeros((3, 4), "f4,f4")),
]
TAKERS: dict[str, Callable[[Any], Any]] = {
    "Index": omendb.Index,
    "search": lambda x: _index().search(x),
    "search_radius": lambda x: _index().search_radius(x, 1.0),
    "add": lambda x: _index().add(x),
    "update": lambda x: _index().update([10, 11, 12][: max(len(x), 1)], x),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_numbers_that_are_not_real_are_a_type_error(taker: str) -> None:
    for words, given in REAL_TYPES:
        with pytest.raises(TypeError, match=f"(?i){words}"):
            TAKERS[taker](given)


@pytest.mark.parametrize("taker", TAKERS)
def test_objects_that_are_not_numbers_are_refused(taker: str) -> None:
    strange: tuple[Any, ...] = (
        np.full((3, 4), "x", object),
        np.full((3, 4), None, object),
        np.full((3, 4), 1j, object),
        np.full((3, 4), 10**400, object),
        [[{}, [], (), None]],
        [[1, 2], [3]],
        [[1.0, 2.0, 3.0, "four"]],
    )
    for given in strange:
        with pytest.raises((TypeError, ValueError)):
            TAKERS[taker](given)


@pytest.mark.parametrize("given", [None, 5, "text", {}, {1, 2}, object(), b"bytes", iter([1])])
def test_things_that_are_not_arrays_are_refused(given: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        omendb.Index(given)
    with pytest.raises((TypeError, ValueError)):
        _index().search(given)
    with pytest.raises((TypeError, ValueError)):
        _index().add(given)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_name_the_first_bad_row(taker: str, bad: float) -> None:
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        given = _with(bad, 1, 3, dtype)
        given[2] = np.nan
        with pytest.raises(ValueError, match=r"(?i)(nan|inf|finite).*row.*\b1\b|row 1\b"):
            TAKERS[taker](given)
        with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
            TAKERS[taker](given[1:2])


def test_the_first_bad_row_is_named_at_any_thread_count() -> None:
    x = np.ones((20_000, 8), np.float32)
    x[[19_999, 12_345, 7_001], [0, 7, 3]] = np.nan
    x[1023 + 6000, 0] = -np.inf
    for threads, layout in itertools.product((1, 2, 3, None), "CF"):
        with pytest.raises(ValueError, match=r"\b7001\b|\b7,001\b"):
            omendb.Index(np.asarray(x, order=layout), threads=threads)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"(?i)nan|inf|finite"):
        omendb.Index(np.ones((2, 8))).search(x[7001])


@pytest.mark.parametrize("taker", TAKERS)
def test_numbers_whose_squares_overflow_are_refused(taker: str) -> None:
    # A float32 index cannot even hold them, and may say so in its own words.
    words = "row 1" if taker in ("add", "update") else r"(?i)1e\+?150"
    for bad in (1.1e150, -1e308, 1.7e308):
        with pytest.raises(ValueError, match=words):
            TAKERS[taker](_with(bad, 1, 3, "float64"))
    if taker != "Index":
        return
    assert len(omendb.Index(_with(1e150, 1, 3, "float64"))) == 3
    assert len(omendb.Index(_with(3.4e38, 1, 3, "float32"))) == 3


def test_another_width_names_both() -> None:
    for width in (1, 3, 5, 400):
        words = rf"(?s)\b4\b.*\b{width}\b"
        for call in (
            lambda x: _index().search(x),
            lambda x: _index().search(x[0]),
            lambda x: _index().search_radius(x, 1.0),
            lambda x: _index().add(x),
            lambda x: _index().update([10, 11], x),
            lambda x: omendb.Index(x, dim=4),
        ):
            with pytest.raises(ValueError, match=words):
                call(np.ones((2, width), np.float32))


def test_another_number_of_axes_is_refused() -> None:
    for shape in ((3, 4, 1), (1, 1, 1, 4), ()):
        for name, taker in TAKERS.items():
            if name == "update" and not shape:
                continue
            with pytest.raises(ValueError, match=rf"(?i)2.*(\b{len(shape)}\b|shape)"):
                taker(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r"2"):
        omendb.Index(np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"(?i)dim.*0|0.*dim|\b0\b"):
        omendb.Index(np.ones((3, 0), np.float32))


def test_a_dim_that_is_no_positive_integer_is_refused() -> None:
    for dim in (0, -1, -(2**70)):
        with pytest.raises(ValueError, match=rf"(?i)dim.*{dim}|{dim}.*dim"):
            omendb.Index(dim=dim)
    for wrong in ("3", 1.5, [3], 3.0):
        with pytest.raises(TypeError):
            omendb.Index(dim=wrong)  # type: ignore[call-overload]
    with pytest.raises((TypeError, ValueError)):
        omendb.Index()  # type: ignore[call-overload]
    with pytest.raises((TypeError, ValueError)):
        omendb.Index(dim=2**62).add(ones)


def test_a_k_that_is_no_positive_integer_is_refused() -> None:
    for k in (0, -1, -(2**70), np.int64(0)):
        with pytest.raises(ValueError, match=rf"\bk\b.*{k}"):
            _index().search(ones, k)  # type: ignore[arg-type]
    for wrong in (True, False, 2.0, "3", None, [3], np.float64(3), np.bool_(True), 2 + 0j):
        with pytest.raises(TypeError, match=r"\bk\b|(?i:int)"):
            _index().search(ones, wrong)  # type: ignore[arg-type]
    try:
        assert _index().search(ones, 2**70).ids.shape == (3, 5)
    except ValueError as error:
        assert "k" in str(error)  # noqa: PT017 - either answer is fine, OverflowError is not


def test_a_radius_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?i)nan"):
        _index().search_radius(ones, math.nan)
    for wrong in ("1", None, [1.0], 1j):
        with pytest.raises(TypeError, match=r"(?i)radius|real|float|number"):
            _index().search_radius(ones, wrong)  # type: ignore[arg-type]
    for number in (np.float32(2.0), np.int8(2), 2, np.float64(2)):
        assert len(_index().search_radius(ones, number).offsets) == 4  # type: ignore[arg-type]


def test_a_thread_count_that_is_no_positive_integer_is_refused() -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda threads: _index().search(ones, threads=threads),
        lambda threads: _index().search_radius(ones, 1.0, threads=threads),
        lambda threads: _index().add(ones, threads=threads),
        lambda threads: _index().update([10, 11, 12], ones, threads=threads),
        lambda threads: omendb.Index(ones, threads=threads),
    ]
    for call in calls:
        for number in (0, -1, -(2**70)):
            with pytest.raises(ValueError, match=rf"(?i)thread.*{number}|{number}.*thread"):
                call(number)
        for wrong in (1.5, "2", [2]):
            with pytest.raises(TypeError):
                call(wrong)
        call(np.int64(2))


@pytest.mark.parametrize(
    ("wrong", "nearest_name"),
    [
        ("euclidian", "euclidean"),
        ("cosin", "cosine"),
        ("innerproduct", "inner_product"),
        ("manhatten", "manhattan"),
        ("sqeuclidian", "sqeuclidean"),
        ("chebychev", "chebyshev"),
    ],
)
def test_an_unknown_metric_names_the_nearest(wrong: str, nearest_name: str) -> None:
    with pytest.raises(ValueError, match=nearest_name) as caught:
        omendb.Index(ones, metric=wrong)
    assert wrong in str(caught.value)


def test_a_metric_that_is_no_name_is_refused() -> None:
    for strange in ("", "\0", "é", "x" * 10_000, "euclidean "):
        with pytest.raises(ValueError):  # noqa: PT011 - any words will do for such names
            omendb.Index(ones, metric=strange)
    for wrong in (None, 3, ["cosine"], len):
        with pytest.raises(TypeError):
            omendb.Index(ones, metric=wrong)  # type: ignore[call-overload]


def test_a_method_that_does_not_exist_is_refused() -> None:
    for wrong in ("graph", "", "Exact"):
        with pytest.raises(ValueError, match=r"(?i)exact"):
            _index().search(ones, method=wrong)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        _index().search(ones, method=3)  # type: ignore[arg-type]


def test_options_are_keywords_alone_and_known() -> None:
    with pytest.raises(TypeError):
        omendb.Index(ones, 4)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        _index().search(ones, 3, "exact")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _index().search(ones, n=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        omendb.Index(ones, space="l2")  # type: ignore[call-overload]


# What is wrong with some ids, by the words to find, for ids of three rows.
BAD_IDS: list[tuple[type[Exception] | tuple[type[Exception], ...], str, Any]] = [
    (ValueError, r"\b3\b.*\b2\b|\b2\b.*\b3\b", [7, 8]),
    (ValueError, r"\b3\b.*\b0\b|\b0\b.*\b3\b", np.empty(0, np.int64)),
    (ValueError, r"\b8\b", [8, 7, 8]),
    (ValueError, r"(?i)dim|shape|1-D", [[1, 2, 3]]),
    (ValueError, r"(?i)id", np.array([1, 2, 2**63], np.uint64)),
    ((TypeError, ValueError), r"(?i)id|int", [1, 2, 2**70]),
    (TypeError, r"(?i)int", [1.0, 2.0, 3.0]),
    ((TypeError, ValueError), r"(?i)int|row 2 .* null", [1, 2, math.nan]),
    (TypeError, r"(?i)strings|int", ["a", 2, "c"]),
    (TypeError, r"(?i)int", [1j, 2, 3]),
    ((TypeError, ValueError), r"(?i)id|int", [None, 1, 2]),
    ((TypeError, ValueError), r"(?i)id|int", 5),
    ((TypeError, ValueError), r"(?i)id|int", "abc"),
]


@pytest.mark.parametrize("case", range(len(BAD_IDS)))
def test_bad_ids_are_refused(case: int) -> None:
    kind, words, ids = BAD_IDS[case]
    with pytest.raises(kind, match=words):
        omendb.Index(ones, ids=ids)
    with pytest.raises(kind, match=words):
        _index().add(ones, ids=ids)


def test_ids_that_are_taken_or_unknown_are_named() -> None:
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("13", lambda: _index().add(ones, ids=[1, 13, 2])),
        ("77", lambda: _index().remove([10, 77])),
        ("-1", lambda: _index().remove([-1])),
        ("11", lambda: _index().remove([10, 11, 11])),
        ("77", lambda: _index().update([10, 77, 11], ones)),
        ("11", lambda: _index().update([11, 10, 11], ones)),
        ("77", lambda: _index().search(ones, filter=[10, 77])),
        ("77", lambda: _index().search_radius(ones, 1.0, filter=[10, 77])),
        ("0", lambda: omendb.Index(dim=4).remove([0])),
    ]
    for number, call in calls:
        with pytest.raises(ValueError, match=rf"(?<!\d){number}\b"):
            call()
    strange: tuple[Any, ...] = ([1.5], ["a"], [[10]], [None], 10.5)
    for wrong in strange:
        with pytest.raises((TypeError, ValueError)):
            _index().remove(wrong)


def test_an_update_needs_as_many_rows_as_ids() -> None:
    with pytest.raises(ValueError, match=r"\b2\b.*\b3\b|\b3\b.*\b2\b"):
        _index().update([10, 11], ones)


def test_bad_filters_are_refused() -> None:
    bad: list[tuple[type[Exception] | tuple[type[Exception], ...], str, Any]] = [
        (ValueError, r"\b5\b.*\b4\b|\b4\b.*\b5\b", np.ones(4, bool)),
        (ValueError, r"\b5\b.*\b6\b|\b6\b.*\b5\b", np.ones(6, bool)),
        (ValueError, r"\b5\b.*\b0\b|\b0\b.*\b5\b", np.ones(0, bool)),
        (ValueError, r"(?i)dim|shape|1-D", np.ones((5, 1), bool)),
        (ValueError, r"(?i)dim|shape|1-D", np.full((1, 1), 10)),
        (TypeError, r"(?i)bool|int", np.ones(5)),
        (TypeError, r"(?i)bool|int", ["a"] * 5),
        ((TypeError, ValueError), r"(?i)bool|int|filter", "10"),
        ((TypeError, ValueError), r"(?i)bool|int|filter|id", 10**30),
        ((TypeError, ValueError), r"(?i)bool|int|filter|id", np.array([2**64 - 1], np.uint64)),
    ]
    for kind, words, given in bad:
        with pytest.raises(kind, match=words):
            _index().search(ones, filter=given)
        with pytest.raises(kind, match=words):
            _index().search_radius(ones, 1.0, filter=given)


def test_a_progress_that_cannot_be_called_is_refused() -> None:
    for wrong in (3, "yes", [1]):
        with pytest.raises(TypeError, match=r"(?i)progress|call"):
            _index().search(ones, progress=wrong)  # type: ignore[arg-type]


def test_an_array_that_fails_to_convert_says_why() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            raise ValueError("out of luck")

    with pytest.raises((TypeError, ValueError)):
        omendb.Index(Broken())


@pytest.mark.parametrize("taker", TAKERS)
def test_ctrl_c_during_a_conversion_stays_a_keyboard_interrupt(taker: str) -> None:
    class Number:
        def __float__(self) -> float:
            raise KeyboardInterrupt

    class Whole:
        def __len__(self) -> int:
            return 3

        def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
            raise KeyboardInterrupt

    numbers = np.empty((3, 4), object)
    numbers.fill(Number())
    for given in (numbers, Whole()):
        with pytest.raises(KeyboardInterrupt):
            TAKERS[taker](given)


def test_no_bad_argument_ever_panics(rng: np.random.Generator) -> None:
    strange: list[Any] = [
        None,
        True,
        -1,
        0,
        2**63,
        2**70,
        1e308,
        math.nan,
        "x",
        b"x",
        [],
        [[]],
        [[[]]],
        {},
        object(),
        len,
        np.empty((0, 0)),
        np.empty((3, 0)),
        np.empty((0, 4)),
        np.array(7),
        np.array([["x"]]),
        np.full((2, 4), np.nan),
        np.zeros((2, 4), ">f4"),
        np.zeros((2, 2, 2)),
        np.ma.masked_array(np.ones((2, 4)), mask=True),
        np.longdouble(1) * np.ones((2, 4), np.longdouble),
    ]
    calls: list[Callable[[Any, Any], Any]] = [
        lambda a, b: omendb.Index(a, ids=b),
        lambda a, b: omendb.Index(a, metric=b),
        lambda a, b: omendb.Index(a, dim=b),
        lambda a, b: omendb.Index(a, copy=b),
        lambda a, b: _index().search(a, b),
        lambda a, b: _index().search(a, filter=b),
        lambda a, b: _index().search(a, threads=b if b != 2**63 and b != 2**70 else 1),
        lambda a, b: _index().search(ones, a, filter=b),
        lambda a, b: _index().search_radius(a, b),
        lambda a, b: _index().search_radius(ones, a, filter=b),
        lambda a, b: _index().add(a, b),
        lambda a, b: _index().update(a, b),
        lambda a, _: _index().remove(a),
        lambda a, _: a in _index(),
        lambda a, b: _index().search(ones, progress=a, method=b),
    ]
    for call in calls:
        for a in strange:
            for b in strange:
                # Anything else, a panic above all, fails the test.
                with contextlib.suppress(TypeError, ValueError):
                    call(a, b)


# What says that it is no plain array --------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_subclasses_of_arrays_are_arrays_and_masked_values_refused() -> None:
    rows = np.array([[0.0, 0.0], [0.0, 0.01], [5.0, 5.0], [5.0, 5.01]])
    index = omendb.Index(np.asmatrix(rows))
    assert type(index.vectors) is np.ndarray
    assert len(omendb.duplicates(np.asmatrix(rows), 0.1, "euclidean")) == 2
    assert type(omendb.Index(np.ma.array(rows)).vectors) is np.ndarray
    some = np.ma.array([True] * 4, mask=[True, False, False, False])
    for call in (
        lambda: omendb.Index(np.ma.array(rows, mask=rows > 4)),
        lambda: index.search([0.0, 0.0], 1, filter=some),
        lambda: index.search(np.ma.array([0.0, 0.0], mask=[True, False])),
        lambda: index.remove(np.ma.array([0, 1], mask=[True, False])),
    ):
        with pytest.raises(ValueError, match="masked"):
            call()
    assert len(index) == 4


def test_a_column_of_vectors_is_taken_wherever_vectors_are(rng: np.random.Generator) -> None:
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    rows = rng.standard_normal((20, 4))
    index, lists = omendb.Index(rows), rows.tolist()
    for column in (
        pandas.Series(list(rows)),
        pandas.Series(lists),
        pandas.Series(arrow.array(lists), dtype=pandas.ArrowDtype(arrow.list_(arrow.float64()))),
        polars.Series(lists),
        arrow.array(lists),
        arrow.chunked_array([lists[:7], lists[7:]]),
    ):
        np.testing.assert_array_equal(index.search(column, 1).ids[:, 0], np.arange(20))
        np.testing.assert_array_equal(omendb.Index(column).vectors, rows)
    with pytest.raises(ValueError, match=r"4 numbers in row 0 and 2 in row 1"):
        index.search(pandas.Series([lists[0], lists[1][:2]]))
    with pytest.raises(ValueError, match="row 1 of the queries is null"):
        index.search(arrow.array([lists[0], None]))


def test_other_errors_than_of_values_are_handed_on() -> None:
    class Interrupted:
        def __index__(self) -> int:
            raise KeyboardInterrupt

        def __float__(self) -> float:
            raise KeyboardInterrupt

    class Large:
        def __array__(self, *_: object, **__: object) -> Array:
            raise MemoryError

    index = omendb.Index(np.eye(3))
    interrupted: Any = Interrupted()
    for call in (
        lambda: index.search(np.eye(3), interrupted),
        lambda: index.search(np.eye(3), 1, threads=interrupted),
        lambda: index.search_radius(np.eye(3), interrupted),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    with pytest.raises(MemoryError):
        omendb.Index(Large())
    with pytest.raises(TypeError, match="bool at row 0"):
        omendb.Index(np.eye(3), ids=[True, 2, 3])
