"""Texts and metadata beside the vectors of one index: what adapters to other frameworks share.

Everything lies in the index: its ids are the documents', and texts and metadata (as JSON) are
columns of it. So a search brings its documents along, `Index.save` writes them, and nothing is held
twice. Needs pyarrow.
"""

from __future__ import annotations

import json
import threading
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow

from omendb._core import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Documents", "Row", "check_count", "encoded"]


class Row(NamedTuple):
    """A document as it is kept; its vector is not read by searches."""

    id: str
    text: str | None
    metadata: dict[str, Any]
    vector: Sequence[float] | NDArray[Any] | None = None


class Documents:
    """An index whose rows have a text and metadata.

    Parameters
    ----------
    metric : str
        As for `omendb.Index`.
    dtype : str
        What embeddings are kept as: "float32" or "float64".

    Attributes
    ----------
    index : Index or None
        None until the first row says how long a vector is.
    lock : threading.RLock
        Held by edits, which are made of several of the index's own, and by all that reads but
        `search`: that may miss rows which are being replaced.
    """

    def __init__(self, metric: str, dtype: str) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"expected dtype to be 'float32' or 'float64', got {dtype!r}")
        self.metric = Index(dim=1, metric=metric).metric  # its canonical name
        self.dtype = dtype
        self.index: Index | None = None
        self.lock = threading.RLock()

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Documents:
        """Load rows that `save` wrote, with the metric and the dtype that they have."""
        index = Index.load(path)
        schema = index.get([]).to_arrow().schema
        number = schema.field("vector").type.value_type if "vector" in schema.names else None
        string = pyarrow.large_string()
        expected = [("id", string), ("text", string), ("metadata", string)]
        found = [(field.name, field.type) for field in schema if field.name != "vector"]
        if number not in (pyarrow.float32(), pyarrow.float64()) or found != expected:
            raise ValueError(
                f"expected {path} to hold texts in the columns id, text and metadata, and floats "
                f"in vector, got {', '.join(f'{field.name} ({field.type})' for field in schema)}: "
                "it is an index that no such store has saved"
            )
        documents = cls(index.metric, "float32" if number == pyarrow.float32() else "float64")
        documents.index = index
        return documents

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to a file, which replaces one that is there."""
        with self.lock:
            if self.index is None:
                raise ValueError(
                    "there is nothing to save: how long a vector is only the first document says"
                )
            self.index.save(path)

    def __len__(self) -> int:
        """Count the rows."""
        with self.lock:
            return 0 if self.index is None else len(self.index)

    def __contains__(self, id: str) -> bool:
        """Say whether a row has this id."""
        with self.lock:
            return self.index is not None and id in self.index

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows, replacing those with the same ids; of equal ids the last one counts.

        A replaced row comes after all others. For a moment it is missing from searches of other
        threads, because an index cannot change metadata in place. Nothing changes where a row
        cannot be kept. Where memory is lacking or Ctrl-C comes, the rows that were to be replaced
        are put back, but after all others.
        """
        frame = self._frame(list({row.id: row for row in rows}.values()))
        if not len(frame):
            return
        new = Index.from_frame(frame, vector="vector", id="id", metric=self.metric)
        with self.lock:
            if self.index is None:
                self.index = new
                return
            if new.dim != self.index.dim:
                raise ValueError(
                    f"expected embeddings of {self.index.dim} numbers, as those that are there, "
                    f"got {new.dim}"
                )
            known = [id for id in frame["id"].to_pylist() if id in self.index]
            before = self.index.get(known).to_arrow()
            try:
                self.index.remove(known)
                self.index.add_frame(frame)
            except BaseException:  # each of the two does all or nothing
                if known and known[0] not in self.index:
                    self.index.add_frame(before)
                raise

    def remove(self, ids: Iterable[str] | None = None) -> None:
        """Remove the rows of these ids that there are, or all rows."""
        given = None if ids is None else _once(ids)
        with self.lock:
            if self.index is not None:
                given = self.index.ids.tolist() if given is None else given
                self.index.remove([id for id in given if id in self.index])

    def get(self, ids: Iterable[str]) -> list[Row]:
        """Give the rows of these ids that there are, in their order, each once."""
        given = _once(ids)
        with self.lock:
            if self.index is None:
                return []
            known = [id for id in given if id in self.index]
            return _rows(self.index.get(known).to_arrow())

    def all(self) -> list[Row]:
        """Give all rows, in the order in which they came."""
        with self.lock:
            table = None if self.index is None else pyarrow.table(self.index)
        return [] if table is None else _rows(table)

    def search(
        self, vector: ArrayLike, k: int, keep: Callable[[Row], bool] | None = None
    ) -> list[tuple[Row, float]]:
        """Find the k nearest rows that `keep` accepts, with their distances.

        Rows are asked for in growing numbers until enough of them are accepted, so that `keep` is
        called for the nearest rows alone and not for all of them before each search. A row that is
        being replaced may be missed.
        """
        check_count("k", k)
        k = int(k)  # of NumPy's, four times as many may be too many
        index = self.index
        if index is None:
            return []
        wanted = k if keep is None else 4 * k
        while True:
            table = index.search(vector, wanted).to_arrow()
            found = [
                (row, distance)
                for row, distance in zip(_rows(table), table["distance"].to_pylist(), strict=True)
                if keep is None or keep(row)
            ]
            if len(found) >= k or len(table) < wanted:
                return found[:k]
            wanted *= 4

    def _frame(self, rows: list[Row]) -> Any:
        """Rows as an Arrow table, whose vectors the index will check."""
        metadata = [encoded(row) for row in rows]
        number = pyarrow.type_for_alias(self.dtype)
        try:
            vectors = pyarrow.array([row.vector for row in rows], pyarrow.list_(number))
        except pyarrow.ArrowException as error:
            raise TypeError(f"expected embeddings to be lists of numbers: {error}") from error
        string = pyarrow.large_string()
        return pyarrow.table(
            {
                "id": pyarrow.array([row.id for row in rows], string),
                "vector": vectors,
                "text": pyarrow.array([row.text for row in rows], string),
                "metadata": pyarrow.array(metadata, string),
            }
        )


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"expected {name} to be at least 1, got {value}")


def _once(ids: Iterable[str]) -> list[str]:
    """Ids without those that come again."""
    if isinstance(ids, str):  # whose letters may be ids
        raise TypeError(f"expected a list of ids, got the string {ids!r}: pass [{ids!r}]")
    return list(dict.fromkeys(ids))


def encoded(row: Row) -> str:
    """Give the metadata of a row as JSON, or say what of the row cannot be kept."""
    if not isinstance(row.id, str):
        raise TypeError(f"expected ids to be strings, got {row.id!r}")
    of = f"of the document {row.id!r}"
    if not isinstance(row.text, str | None):
        raise TypeError(f"expected the text {of} to be a string, got {type(row.text).__name__}")
    if not isinstance(row.metadata, dict):
        raise TypeError(f"expected the metadata {of} to be a dict, got {row.metadata!r}")
    try:
        metadata = json.dumps(row.metadata, ensure_ascii=False, allow_nan=False)
        _check_keys(row.metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata {of} cannot be kept as JSON: {error}") from error
    for name, text in (("id", row.id), ("text", row.text or ""), ("metadata", metadata)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the {name} {of} cannot be kept as UTF-8: {error}") from error
    return metadata


def _check_keys(value: Any) -> None:
    """Refuse keys of which JSON would make texts, and so perhaps one of two."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"expected keys to be strings, got {key!r}")
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        _check_keys(item)


def _rows(table: Any) -> list[Row]:
    """Rows of a table that an index gave."""
    vectors: Iterable[Any] = [None] * len(table)
    if "vector" in table.column_names:
        column = table["vector"].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    columns = (table[name].to_pylist() for name in ("id", "text", "metadata"))
    return [
        Row(id, text, json.loads(metadata), vector)
        for id, text, metadata, vector in zip(*columns, vectors, strict=True)
    ]
