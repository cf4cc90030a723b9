"""Frames in and out: what pandas, Polars and pyarrow mean by their columns.

Answers and rows export Arrow's C stream, so that going out is one call of each library. Coming in,
everything but pandas exports that stream as well and is read in Rust; pandas keeps vectors as
Python objects, and ids in its index or in columns of objects, which is understood here.
No library is imported before it is needed.
"""

from __future__ import annotations

import importlib
import sys
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omendb._core import Hits, RadiusHits, Records

    Exporter = Hits | RadiusHits | Records

__all__ = ["aligned", "booleans", "of_pandas", "stacked", "to_arrow", "to_pandas", "to_polars"]


def _need(module: str, what: str) -> Any:
    """Import an optional library, or say which one to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module}: pip install {module}") from error


# In ---------------------------------------------------------------------------------------


def of_pandas(
    frame: Any, vector: str | list[str], id: str | None
) -> tuple[Any, Any, str, Any] | None:
    """Take a pandas frame apart.

    Parameters
    ----------
    frame : object
        A frame of any library.
    vector : str or list of str
        The column of vectors, or the columns of their numbers.
    id : str, optional
        The column of ids, or the name of the frame's index.

    Returns
    -------
    (vectors, ids, id name, metadata) or None
        An array, or what exports Arrow; ids or None; a ``pyarrow.Table`` or None. None where the
        frame is not one of pandas.
    """
    _check_polars(frame)
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(frame, pandas.DataFrame):
        return None
    labels = _labels(frame)
    columns = [vector] if isinstance(vector, str) else vector
    for name in columns:
        _check_column(labels, name)
    if len(set(columns)) < len(columns):
        raise ValueError("expected vector= to name each column once")
    taken = [labels[name] for name in columns]
    if id is not None and id not in labels and id == str(frame.index.name):
        ids, id_name = _index_ids(pandas, frame.index), id
    elif id is not None:
        _check_column(labels, id)
        if id in columns:
            raise ValueError(f"the column {id!r} cannot be both the ids and a vector")
        column = frame[labels[id]]
        _check_missing(column, id)
        ids, id_name = column, id
        if "arrow.uuid" in str(getattr(column.dtype, "pyarrow_dtype", "")):
            ids = column.array.__arrow_array__()  # NumPy gets bytes
        taken.append(labels[id])
    else:
        ids = _index_ids(pandas, frame.index)
        id_name = "id" if frame.index.name is None else str(frame.index.name)
    if isinstance(vector, str):
        vectors = _vectors(frame[labels[vector]], vector)
    else:
        vectors = _block(frame[taken[: len(columns)]])
    rest = frame.drop(columns=taken)
    return vectors, ids, id_name, _metadata(rest) if len(rest.columns) else None


def _check_polars(frame: Any) -> None:
    """Refuse what Polars does not export as what it is."""
    polars = sys.modules.get("polars")
    if polars is None:
        return
    if isinstance(frame, polars.LazyFrame):
        raise TypeError("expected a frame with its rows, got a LazyFrame: collect() it first")
    if not isinstance(frame, polars.DataFrame):
        return
    refused = [getattr(polars, name, None) for name in ("Object", "Null", "Int128", "UInt128")]
    for name, dtype in frame.schema.items():
        inner = dtype
        while getattr(inner, "inner", None) is not None:
            inner = inner.inner
        if inner in refused:
            raise TypeError(
                f"the column {name!r} is of Polars' type {dtype}, which cannot be read: leave it "
                "out, or cast it"
            )


def _labels(frame: Any) -> dict[str, Any]:
    """Look labels of columns up by their texts, which must tell them apart."""
    if frame.columns.nlevels > 1:
        raise ValueError("the frame has columns of several levels: give them one name each first")
    labels: dict[str, Any] = {}
    for label in frame.columns:
        if str(label) in labels:
            raise ValueError(f"the frame has two columns {str(label)!r}: rename one of them")
        labels[str(label)] = label
    return labels


def _check_column(labels: dict[str, Any], name: str) -> None:
    if name not in labels:
        known = ", ".join(labels) or "none"
        raise ValueError(f"the frame has no column {name!r}; its columns are {known}")


def _counts(pandas: Any, index: Any) -> bool:
    """Say whether an index of a frame only counts the rows from 0."""
    return isinstance(index, pandas.RangeIndex) and index.start == 0 and index.step == 1


def _index_ids(pandas: Any, index: Any) -> Any:
    """Ids from a frame's index; none where it only counts the rows from 0."""
    advice = "name a column by id=, or begin with frame.reset_index(drop=True)"
    if _counts(pandas, index):
        return None
    if isinstance(index, pandas.MultiIndex):
        raise ValueError(f"an index of several levels cannot be the ids: {advice}")
    missing = np.flatnonzero(index.isna())
    if len(missing):
        raise _null(int(missing[0]), "the frame's index")
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise ValueError(
            f"the frame's index has {twice!r} twice, so it cannot be the ids: {advice}"
        )
    if not len(index):
        return index  # whose type says more than an array's
    ids = index.to_numpy()
    if ids.dtype.kind in "iuU" or isinstance(ids[0], str | uuid.UUID):
        return ids
    if index.inferred_type == "integer":
        return ids.astype(np.int64) if ids.dtype.kind == "O" else ids
    raise TypeError(
        f"the frame's index of {index.dtype} cannot be the ids, which are integers, strings or "
        f"UUIDs: {advice}"
    )


def _null(row: int, what: str, inside: str = "") -> ValueError:
    return ValueError(f"row {row} of {what} is null{inside}; drop or impute such rows first")


def _check_missing(column: Any, name: object) -> None:
    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise _null(int(missing[0]), f"the column {str(name)!r}")


def _vectors(column: Any, name: str) -> Any:
    """One column of vectors: Arrow's where they are, or one array of all of them."""
    if hasattr(column.dtype, "pyarrow_dtype"):
        return column.array.__arrow_array__()
    if column.dtype != object:
        raise TypeError(
            f"expected the column {name!r} to hold arrays or lists of numbers, got {column.dtype}; "
            "name several columns, as in vector=['x', 'y'], if each holds one number"
        )
    if not len(column):
        raise ValueError(
            f"the column {name!r} has no rows to tell the length of a vector by: begin with "
            "omendb.Index(dim=...)"
        )
    _check_missing(column, name)
    return _stack(column.to_numpy(), f"the column {name!r}")


def stacked(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Put a column of vectors together that came as an array of objects.

    Parameters
    ----------
    values : ndarray of shape (n,), dtype object
        Arrays or lists, as columns of frames become. Anything else is handed back.
    what : str
        What they are, for messages.

    Returns
    -------
    ndarray of shape (n, dim)
    """
    if not len(values) or not hasattr(values[0], "__len__") or isinstance(values[0], str | bytes):
        return values
    return _stack(values, f"the {what}")


def _stack(values: NDArray[Any], what: str) -> NDArray[Any]:
    rows = [_vector(value, what, row) for row, value in enumerate(values)]
    dim = len(rows[0])
    for row, numbers in enumerate(rows):
        if len(numbers) != dim:
            raise ValueError(
                f"expected all vectors of {what} to have one length, got {dim} numbers in row 0 "
                f"and {len(numbers)} in row {row}"
            )
    return np.stack(rows)


def _vector(value: Any, what: str, row: int) -> NDArray[Any]:
    """One row's numbers."""
    if value is None:
        raise _null(row, what)
    try:
        values = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"row {row} of {what} is no vector: {error}") from error
    if values.ndim == 1 and values.dtype == object:
        for place, item in enumerate(values):
            if item is None:
                raise _null(row, what, f" at place {place}")
    if values.ndim != 1 or (values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16"):
        raise TypeError(
            f"expected {what} to hold lists of numbers, got {type(value).__name__} in row {row}"
        )
    return values


def booleans(values: NDArray[Any]) -> NDArray[Any]:
    """Make a mask of booleans that came as an array of objects.

    Parameters
    ----------
    values : ndarray of shape (n,), dtype object
        As columns with missing values become. Anything without a boolean is handed back.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        If only some are booleans; the first that is none is named.
    """
    flags = [isinstance(value, bool | np.bool_) for value in values]
    if not any(flags):
        return values
    if not all(flags):
        row = flags.index(False)
        raise ValueError(
            f"row {row} of the filter is {values[row]!r}, where others are booleans; fill in what "
            "is missing first, as by mask.fillna(False)"
        )
    return values.astype(bool)


def aligned(mask: Any, ids: NDArray[Any], name: str) -> Any:
    """Put the booleans of a pandas column in the order of some ids.

    Parameters
    ----------
    mask : object
        Booleans, of whatever dtype. What is no `pandas.Series` with all of the ids in its index is
        handed back.
    ids : ndarray of shape (n,)
        The ids of an index.
    name : str
        What their column is called.

    Returns
    -------
    object
        As ``frame[mask]`` means it: by the labels, wherever they stand. Labels that may be the ids
        by chance are not looked at: numbers that only count rows, and 0 to n - 1 under another
        name.
    """
    pandas = sys.modules["pandas"]
    if not isinstance(mask, pandas.Series) or len(mask) != len(ids):
        return mask
    if ids.dtype.kind in "iu":
        named = mask.index.name in ((None, name) if name == "id" else (name,))
        counts = not named and np.array_equal(np.sort(ids), np.arange(len(ids)))
        if counts or (mask.index.name is None and _counts(pandas, mask.index)):
            return mask
    labels = pandas.Index(ids)
    if not mask.index.is_unique or mask.index.equals(labels):
        return mask
    places = mask.index.get_indexer(labels)
    return mask.iloc[places] if (places >= 0).all() else mask


def _block(frame: Any) -> NDArray[Any]:
    """Columns of one number each as one array."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        kind = getattr(column.dtype, "kind", "O")
        if kind not in "iufb":
            raise TypeError(
                f"expected the column {str(name)!r} to hold numbers, got {column.dtype}"
            )
        if not isinstance(column.dtype, np.dtype):  # a type of pandas, with its own missing values
            _check_missing(column, name)
            own = column.dtype  # a sparse one calls it otherwise
            column = column.astype(own.subtype if hasattr(own, "subtype") else own.numpy_dtype)
        columns.append(column.to_numpy())
    return np.column_stack(columns)


def _metadata(frame: Any) -> Any:
    """Make an Arrow table of the other columns."""
    names = ", ".join(str(name) for name in frame.columns)
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(
            f"the frame's other columns ({names}) are kept as metadata, for which pandas needs "
            "pyarrow: pip install pyarrow, or leave the columns out"
        ) from error
    try:
        return pyarrow.Table.from_pandas(frame, preserve_index=False)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        if len(frame.columns) > 1:
            for name in frame.columns:  # not every error names the column
                _metadata(frame[[name]])
        raise ValueError(
            f"the column {names!r} holds values of no single type that can be kept: {error}; "
            "leave it out, or make strings of it"
        ) from error


# Out --------------------------------------------------------------------------------------


def to_arrow(records: Exporter) -> Any:
    """Make an Arrow table of answers or rows.

    Parameters
    ----------
    records : Hits, RadiusHits or Records
        What exports Arrow's C stream.

    Returns
    -------
    pyarrow.Table
    """
    return _need("pyarrow", "to_arrow").table(records)


def to_polars(records: Exporter) -> Any:
    """Make a Polars frame of answers or rows; as `to_arrow`.

    Returns
    -------
    polars.DataFrame
    """
    return _need("polars", "to_polars").DataFrame(records)


def to_pandas(records: Exporter) -> Any:
    """Make a pandas frame of answers or rows; as `to_arrow`.

    Returns
    -------
    pandas.DataFrame
        Integers and booleans of which some are missing are of pandas' nullable types, UUIDs are
        `uuid.UUID`, and vectors arrays.
    """
    pandas = _need("pandas", "to_pandas")
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError as error:
        if len(getattr(records, "_columns", ())) != 1:
            raise ImportError(
                "to_pandas needs pyarrow for vectors and metadata: pip install pyarrow"
            ) from error
        return pandas.DataFrame(_arrays(records))
    table = pyarrow.table(records)
    frame = table.to_pandas()
    for place, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if str(field.type) == "extension<arrow.uuid>":  # older pyarrow gives bytes
            storage = column.combine_chunks().storage.to_pylist()
            values = [None if id is None else uuid.UUID(bytes=id) for id in storage]
            frame.isetitem(place, pandas.Series(values, dtype=object, index=frame.index))
        elif column.null_count and pyarrow.types.is_integer(field.type):
            name = str(field.type).replace("int", "Int").replace("uI", "UI")
            frame.isetitem(
                place, column.to_pandas(types_mapper=lambda _, n=name: _dtype(pandas, n))
            )
        elif column.null_count and pyarrow.types.is_boolean(field.type):
            frame.isetitem(place, column.to_pandas(types_mapper=lambda _: pandas.BooleanDtype()))
    return frame


def _dtype(pandas: Any, name: str) -> Any:
    """Find the nullable integer type of pandas of this name."""
    return getattr(pandas, f"{name}Dtype")()


def _arrays(records: Any) -> dict[str, NDArray[Any]]:
    """List the columns of answers without metadata."""
    ids, distances = np.ravel(records.ids), np.ravel(records.distances)
    offsets = getattr(records, "offsets", None)
    if offsets is None:
        queries = len(records)
        offsets = np.arange(queries + 1) * (len(ids) // queries if queries else 0)
    counts = np.diff(offsets)
    [name] = records._columns
    name = "id" if name in ("query", "rank", "distance") else name
    return {
        "query": np.repeat(np.arange(len(counts)), counts),
        "rank": np.arange(len(ids)) - np.repeat(offsets[:-1], counts),
        name: ids,
        "distance": distances,
    }
