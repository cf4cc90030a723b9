"""Texts and metadata beside the vectors of one index: what adapters to other frameworks share.

Everything lies in the index: its ids are the documents', and texts and metadata (as JSON) are
columns of it. So a search brings its documents along, `Index.save` writes them, and nothing is held
twice. Needs pyarrow.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow

from omendb._core import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Documents", "Row"]


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
        Held by edits, which are made of several of the index's own, and by `get`.
    """

    def __init__(self, metric: str, dtype: str) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"expected dtype to be 'float32' or 'float64', got {dtype!r}")
        self.metric = Index(dim=1, metric=metric).metric  # its canonical name
        self.dtype = dtype
        self.index: Index | None = None
        self.lock = threading.RLock()

    @classmethod
    def load(cls, path: str | PathLike[str], dtype: str) -> Documents:
        """Load rows that `save` wrote."""
        index = Index.load(path)
        names = index.get([]).to_arrow().schema.names
        if names != ["id", "vector", "text", "metadata"]:
            raise ValueError(
                f"expected {path} to hold the columns id, vector, text and metadata, got "
                f"{', '.join(names)}: it is an index that no such store has saved"
            )
        documents = cls(index.metric, dtype)
        documents.index = index
        return documents

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to a file, which replaces one that is there."""
        if self.index is None:
            raise ValueError(
                "there is nothing to save: how long a vector is only the first document says"
            )
        self.index.save(path)

    def __len__(self) -> int:
        """Count the rows."""
        return 0 if self.index is None else len(self.index)

    def __contains__(self, id: str) -> bool:
        """Say whether a row has this id."""
        return self.index is not None and id in self.index

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows, replacing those with the same ids; of equal ids the last one counts.

        A replaced row comes after all others. For a moment it is missing from searches of other
        threads, because an index cannot change metadata in place. Nothing changes where it fails.
        """
        frame = self._frame(list({row.id: row for row in rows}.values()))
        if not len(frame):
            return
        with self.lock:
            if self.index is None:
                self.index = Index.from_frame(frame, vector="vector", id="id", metric=self.metric)
                return
            known = [id for id in frame["id"].to_pylist() if id in self.index]
            before = self.index.get(known).to_arrow()
            try:
                self.index.remove(known)
                self.index.add_frame(frame)
            except BaseException:  # Ctrl-C too; each of the two does all or nothing
                if known and known[0] not in self.index:
                    self.index.add_frame(before)
                raise

    def remove(self, ids: Iterable[str] | None = None) -> None:
        """Remove the rows of these ids that there are, or all rows."""
        with self.lock:
            if self.index is not None:
                given = self.index.ids.tolist() if ids is None else dict.fromkeys(ids)
                self.index.remove([id for id in given if id in self.index])

    def get(self, ids: Iterable[str]) -> list[Row]:
        """Give the rows of these ids that there are, in their order, each once."""
        with self.lock:
            if self.index is None:
                return []
            known = [id for id in dict.fromkeys(ids) if id in self.index]
            return _rows(self.index.get(known).to_arrow())

    def all(self) -> list[Row]:
        """Give all rows, in the order in which they came."""
        index = self.index
        return [] if index is None else _rows(pyarrow.table(index))

    def search(
        self, vector: ArrayLike, k: int, keep: Callable[[Row], bool] | None = None
    ) -> list[tuple[Row, float]]:
        """Find the k nearest rows that `keep` accepts, with their distances.

        Rows are asked for in growing numbers until enough of them are accepted, so that `keep` is
        called for the nearest rows alone and not for all of them before each search.
        """
        if k < 1:
            raise ValueError(f"expected k to be at least 1, got {k}")
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
        metadata = []
        for row in rows:
            if not isinstance(row.id, str):
                raise TypeError(f"expected ids to be strings, got {row.id!r}")
            try:
                metadata.append(json.dumps(row.metadata, ensure_ascii=False))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"the metadata of the document {row.id!r} cannot be kept as JSON: {error}"
                ) from error
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
