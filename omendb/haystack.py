"""Haystack's document store and retriever over an index. Needs ``haystack-ai`` and pyarrow.

A document is a row: its content the text, everything else the metadata. One without an embedding
has zeros for a vector and says so in its metadata, so that all documents keep one order and lie in
one file.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
from haystack.utils.filters import document_matches_filter

from omendb._core import Index
from omendb.documents import Documents, Row, check_count

__all__ = ["OmenDocumentStore", "OmenEmbeddingRetriever"]

Filters = dict[str, Any]
Self = TypeVar("Self")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _in_thread(
    method: Callable[Concatenate[Self, Parameters], Result],
) -> Callable[Concatenate[Self, Parameters], Coroutine[Any, Any, Result]]:
    """Make the asynchronous twin of a method."""

    async def run(self: Self, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    return functools.update_wrapper(run, method)


class OmenDocumentStore:
    """Documents by their metadata and by the nearness of their embeddings.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A file that `save_to_disk` writes; its documents are there at once if it exists.
    metric : str, default="cosine"
        What a distance means; see `omendb.Index`.
    dtype : {"float64", "float32"}, default="float64"
        What embeddings are kept as. float32 takes half of the memory, and rounds where numbers are
        none.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind, or of another metric or dtype.

    Notes
    -----
    Each method has a twin whose name ends in ``_async``, which leaves the work to a thread.

    To load a pipeline with these classes, ``allowed_modules=["omendb.haystack"]`` is to be given to
    ``Pipeline.load``.

    ``meta`` must be what JSON can hold, with keys that are texts; tuples come back as lists.

    Any thread may call anything at any time. A document that is being replaced may be missed by an
    `embedding_retrieval` that runs at the same moment, by nothing else.

    Examples
    --------
    >>> from haystack import Document
    >>> from omendb.haystack import OmenDocumentStore, OmenEmbeddingRetriever
    >>> store = OmenDocumentStore()
    >>> store.write_documents(
    ...     [
    ...         Document(content="red", meta={"warm": True}, embedding=[1.0, 0.0]),
    ...         Document(content="green", meta={"warm": False}, embedding=[0.0, 1.0]),
    ...     ]
    ... )
    2
    >>> retriever = OmenEmbeddingRetriever(store, top_k=1)
    >>> [document] = retriever.run(query_embedding=[0.0, 2.0])["documents"]
    >>> document.content, document.score
    ('green', 1.0)
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        metric: str = "cosine",
        dtype: str = "float64",
    ) -> None:
        self.path = None if path is None else str(path)  # a pipeline's text holds no other objects
        self.dtype = dtype
        self._documents = Documents(metric, dtype)
        self.metric = self._documents.metric
        if path is not None and Path(path).exists():
            self._documents = Documents.load(path)
            for name in ("metric", "dtype"):
                wanted, found = getattr(self, name), getattr(self._documents, name)
                if wanted != found:
                    raise ValueError(
                        f"expected {path} to hold embeddings of {name} {wanted!r}, got {found!r}: "
                        f"pass {name}={found!r}"
                    )

    @property
    def index(self) -> Index | None:
        """The index, for example to build a graph; None before the first document."""
        return self._documents.index

    def to_dict(self) -> dict[str, Any]:
        """Give the parameters as a dict: without the documents, which are in the file of `path`."""
        data: dict[str, Any] = default_to_dict(
            self, path=self.path, metric=self.metric, dtype=self.dtype
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> OmenDocumentStore:
        """Make a store from what `to_dict` gave."""
        store: OmenDocumentStore = default_from_dict(cls, data)
        return store

    def save_to_disk(self, path: str | PathLike[str] | None = None) -> None:
        """Write all documents to a file, by default that of the store's `path`."""
        path = self.path if path is None else path
        if path is None:
            raise ValueError("expected a path, here or when the store is made")
        self._documents.save(path)

    # Documents come and go ----------------------------------------------------------------

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy | str = DuplicatePolicy.NONE
    ) -> int:
        """Write documents.

        Parameters
        ----------
        documents : list of Document
            With embeddings of one length, or without.
        policy : DuplicatePolicy or str
            What happens where an id is there already, or is given twice. NONE is FAIL.

        Returns
        -------
        int
            How many were written.

        Raises
        ------
        DuplicateDocumentError
            By FAIL. Nothing is written then.
        ValueError
            If these are no documents, an embedding or the metadata of one cannot be kept, or there
            is no such policy.
        """
        policy = DuplicatePolicy(policy)
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise ValueError(f"expected a list of documents, got {type(documents).__name__}")
        documents = list(documents)
        written: dict[str, Document] = {}
        with self._documents.lock:
            for document in documents:
                if not isinstance(document, Document):
                    raise ValueError(
                        f"expected documents of Haystack, got {type(document).__name__}"
                    )
                known = document.id in written or document.id in self._documents
                if not known or policy is DuplicatePolicy.OVERWRITE:
                    written[document.id] = document
                elif policy is not DuplicatePolicy.SKIP:
                    raise DuplicateDocumentError(f"the id {document.id!r} is there already")
            self._put(list(written.values()))
        return len(documents) if policy is DuplicatePolicy.OVERWRITE else len(written)

    def _put(self, documents: list[Document]) -> None:
        """Add and replace documents; the caller holds the lock."""
        index = self._documents.index
        dim = next((len(d.embedding) for d in documents if d.embedding is not None), None)
        if index is not None and dim not in (None, index.dim) and self._has_no_embedding():
            # Their zeros get the length of an embedding now that it is known.
            documents = [_document(row) for row in self._documents.all()] + documents
            fresh = Documents(self.metric, self.dtype)
            fresh.put(_row(document, dim or 1) for document in documents)
            self._documents.index = fresh.index
            return
        dim = dim or (1 if index is None else index.dim)
        self._documents.put(_row(document, dim) for document in documents)

    def _has_no_embedding(self) -> bool:
        return not any(_has_embedding(row) for row in self._documents.all())

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete the documents of these ids; unknown ids are passed over."""
        self._documents.remove(document_ids)

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Delete all documents; with `recreate_index`, a graph and the length of embeddings too."""
        with self._documents.lock:
            self._documents.remove()
            if recreate_index:
                self._documents.index = None

    def delete_by_filter(self, filters: Filters) -> int:
        """Delete the documents that match filters, and say how many."""
        with self._documents.lock:
            found = [document.id for document in self.filter_documents(filters)]
            self._documents.remove(found)
        return len(found)

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set these values of ``meta`` in the documents that match filters, and say in how many."""
        with self._documents.lock:
            found = self.filter_documents(filters)
            self._put([replace(document, meta={**document.meta, **meta}) for document in found])
        return len(found)

    # Documents by their metadata ----------------------------------------------------------

    def count_documents(self) -> int:
        """Count all documents."""
        return len(self._documents)

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """Give the documents that match filters, or all, with their embeddings."""
        documents = [_document(row) for row in self._documents.all()]
        return [d for d in documents if not filters or document_matches_filter(filters, d)]

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Count the documents that match filters."""
        return len(self.filter_documents(filters))

    def count_unique_metadata_by_filter(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        """Count the different values of fields in the documents that match filters."""
        documents = self.filter_documents(filters)
        names = [name.removeprefix("meta.") for name in metadata_fields]
        return {name: len(_values(documents, name)) for name in names}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Give the type of each field, by its last value: boolean, int, float or keyword."""
        kinds = {bool: "boolean", int: "int", float: "float"}
        fields = [field for document in self.filter_documents() for field in document.meta.items()]
        return {
            name: {"type": kinds.get(type(value), "keyword")}
            for name, value in fields
            if value is not None
        }

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Give the least and the largest value of a field; None where none can be compared."""
        values = _values(self.filter_documents(), metadata_field.removeprefix("meta."))
        try:
            return {"min": min(values, default=None), "max": max(values, default=None)}
        except TypeError:  # texts and numbers, say
            return {"min": None, "max": None}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """Give one page of a field's different values, sorted as texts, and how many there are.

        Parameters
        ----------
        metadata_field : str
            The field, with ``meta.`` before it or without.
        search_term : str, optional
            What values must hold as texts, in capitals or not.
        from_, size : int
            The page.
        filters : dict, optional
            Which documents are looked at.
        """
        values = _values(self.filter_documents(filters), metadata_field.removeprefix("meta."))
        term = (search_term or "").lower()
        values = sorted((value for value in values if term in str(value).lower()), key=str)
        return values[from_ : from_ + size], len(values)

    # Documents by their embeddings --------------------------------------------------------

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: Filters | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
    ) -> list[Document]:
        """Find the documents nearest to an embedding, among those that have one.

        Parameters
        ----------
        query_embedding : list of float
            The embedding.
        filters : dict, optional
            Which documents may answer.
        top_k : int, default=10
            How many, at least 1.
        return_embedding : bool, default=False
            Give the documents with their embeddings.

        Returns
        -------
        list of Document
            The nearest first, each with its score: the cosine, the product, or minus the distance.

        Raises
        ------
        ValueError
            If the embedding is not as long as the others, or `top_k` below 1.
        TypeError
            If `top_k` is no integer.
        """
        check_count("top_k", top_k)
        index = self._documents.index
        if index is not None and len(query_embedding) != index.dim and self._has_no_embedding():
            return []

        def keep(row: Row) -> bool:
            return _has_embedding(row) and (
                not filters or document_matches_filter(filters, _document(row))
            )

        near = self._documents.search(query_embedding, top_k, keep)
        if return_embedding:
            rows = {row.id: row for row in self._documents.get(row.id for row, _ in near)}
            near = [(rows[row.id], distance) for row, distance in near if row.id in rows]
        top = 1.0 if self.metric == "cosine" else 0.0
        return [replace(_document(row), score=top - distance) for row, distance in near]

    count_documents_async = _in_thread(count_documents)
    filter_documents_async = _in_thread(filter_documents)
    write_documents_async = _in_thread(write_documents)
    delete_documents_async = _in_thread(delete_documents)
    delete_all_documents_async = _in_thread(delete_all_documents)
    delete_by_filter_async = _in_thread(delete_by_filter)
    update_by_filter_async = _in_thread(update_by_filter)
    count_documents_by_filter_async = _in_thread(count_documents_by_filter)
    count_unique_metadata_by_filter_async = _in_thread(count_unique_metadata_by_filter)
    get_metadata_fields_info_async = _in_thread(get_metadata_fields_info)
    get_metadata_field_min_max_async = _in_thread(get_metadata_field_min_max)
    get_metadata_field_unique_values_async = _in_thread(get_metadata_field_unique_values)
    embedding_retrieval_async = _in_thread(embedding_retrieval)


@component
class OmenEmbeddingRetriever:
    """The documents of an `OmenDocumentStore` nearest to a query's embedding, in a pipeline.

    Parameters
    ----------
    document_store : OmenDocumentStore
        Where to look.
    filters : dict, optional
        Which documents may answer.
    top_k : int, default=10
        How many answer, at least 1.
    return_embedding : bool, default=False
        Give the documents with their embeddings.
    filter_policy : FilterPolicy or str, default=FilterPolicy.REPLACE
        Whether the filters of a run replace these or are joined with them.
    """

    def __init__(
        self,
        document_store: OmenDocumentStore,
        filters: Filters | None = None,
        top_k: int = 10,
        return_embedding: bool = False,
        filter_policy: FilterPolicy | str = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, OmenDocumentStore):
            raise TypeError(f"expected an OmenDocumentStore, got {type(document_store).__name__}")
        check_count("top_k", top_k)
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.return_embedding = return_embedding
        self.filter_policy = FilterPolicy.from_str(str(filter_policy))

    def to_dict(self) -> dict[str, Any]:
        """Give the parameters as a dict, the store's among them."""
        data: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> OmenEmbeddingRetriever:
        """Make a retriever, and its store, from what `to_dict` gave."""
        parameters = data["init_parameters"]
        store = OmenDocumentStore.from_dict(parameters["document_store"])
        data = {**data, "init_parameters": {**parameters, "document_store": store}}
        retriever: OmenEmbeddingRetriever = default_from_dict(cls, data)
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: Filters | None = None,
        top_k: int | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """Find the documents nearest to an embedding.

        Parameters
        ----------
        query_embedding : list of float
            The embedding.
        filters, top_k, return_embedding : optional
            In place of the retriever's own; `filters` as its policy says.

        Returns
        -------
        dict
            ``documents``: the nearest first, each with its score.
        """
        return {
            "documents": self.document_store.embedding_retrieval(
                query_embedding,
                filters=apply_filter_policy(self.filter_policy, self.filters, filters),
                top_k=self.top_k if top_k is None else top_k,
                return_embedding=(
                    self.return_embedding if return_embedding is None else return_embedding
                ),
            )
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: Filters | None = None,
        top_k: int | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """Do what `run` does, in a thread."""
        return await asyncio.to_thread(self.run, query_embedding, filters, top_k, return_embedding)


def _row(document: Document, dim: int) -> Row:
    """Make a row of a document; `dim` zeros where it has no embedding."""
    data = document.to_dict(flatten=False)
    id, content, embedding = data.pop("id"), data.pop("content"), data.pop("embedding")
    metadata = {name: value for name, value in data.items() if value is not None}
    if embedding is None:
        metadata["embedding"], embedding = None, [0.0] * dim
    return Row(id, content, metadata, embedding)


def _has_embedding(row: Row) -> bool:
    return "embedding" not in row.metadata


def _document(row: Row) -> Document:
    """Make the document again; without its embedding where the row has not been read with it."""
    data = {"embedding": None if row.vector is None else list(map(float, row.vector))}
    return Document.from_dict({**data, "id": row.id, "content": row.text, **row.metadata})


def _values(documents: list[Document], name: str) -> list[Any]:
    """List the different values of a field: 1, 1.0, "1" and True are different."""
    values = (document.meta.get(name) for document in documents)
    return list(
        {json.dumps(value, sort_keys=True): value for value in values if value is not None}.values()
    )
