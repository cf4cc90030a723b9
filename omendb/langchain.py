"""LangChain's vector store over an index. Needs ``langchain-core`` and pyarrow.

Searches for texts embed them by the store's own embedding; the asynchronous ones await its
asynchronous methods and leave the search to a thread, where it runs without Python's lock.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from omendb.documents import Documents, Row, check_count, encoded

if TYPE_CHECKING:
    from os import PathLike

    from langchain_core.embeddings import Embeddings

    from omendb._core import Index

__all__ = ["OmenVectorStore"]

Filter = dict[str, Any] | Callable[[Document], bool]

# Distances as LangChain's relevance, from 0 to 1. All but the cosine's suppose vectors of length 1,
# like LangChain's own; metrics that have no bounds are not here.
RELEVANCE: dict[str, Callable[[float], float]] = {
    "cosine": lambda distance: 1 - distance,
    "inner_product": lambda distance: -distance,
    "euclidean": lambda distance: 1 - distance / math.sqrt(2),
    "sqeuclidean": lambda distance: 1 - math.sqrt(distance / 2),
}


class OmenVectorStore(VectorStore):
    """Documents by the nearness of their embeddings.

    Parameters
    ----------
    embedding : Embeddings
        What makes vectors of texts. They are kept as float32.
    metric : str, default="cosine"
        What a distance means; see `omendb.Index`.
    relevance_score_fn : callable, optional
        Makes of a distance a relevance from 0 to 1, for ``similarity_score_threshold``. By default
        1 - distance for cosine, and its likes for products and lengths of vectors of length 1; what
        would be below 0 is 0. Other metrics have none.

    Notes
    -----
    Where a method takes ``filter``, it is a dict of what the metadata must hold (each key, with an
    equal value), or a function that is called with documents, the nearest first, and says which may
    answer.

    Metadata are kept as JSON: other values, and keys that are no texts, are refused; tuples come
    back as lists.

    Any thread may call anything at any time. A document that is being replaced may be missed by a
    search that runs at the same moment, by nothing else.

    Examples
    --------
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from omendb.langchain import OmenVectorStore
    >>> store = OmenVectorStore(DeterministicFakeEmbedding(size=64))
    >>> store.add_texts(["red", "green"], [{"warm": True}, {"warm": False}], ids=["a", "b"])
    ['a', 'b']
    >>> store.similarity_search("green", k=1)
    [Document(id='b', metadata={'warm': False}, page_content='green')]
    >>> [found.id for found in store.similarity_search("green", filter={"warm": True})]
    ['a']
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        metric: str = "cosine",
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        self.embedding = embedding
        self.relevance_score_fn = relevance_score_fn
        self._documents = Documents(metric, "float32")

    @property
    def embeddings(self) -> Embeddings:
        """What makes vectors of texts."""
        return self.embedding

    @property
    def index(self) -> Index | None:
        """The index, for example to build a graph; None before the first document."""
        return self._documents.index

    # Documents come and go ----------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and add them, replacing documents of the same ids.

        Parameters
        ----------
        texts : iterable of str
            The texts.
        metadatas : list of dict, optional
            Their metadata, as many as there are texts; None is an empty dict.
        ids : list of str, optional
            Their ids, as many as there are texts; a new one where one is None.
        **kwargs : object
            Ignored: other stores have a ``batch_size``, say, and LangChain hands it to all of them.

        Returns
        -------
        list of str
            The ids.

        Raises
        ------
        ValueError
            If numbers do not fit, or metadata cannot be kept as JSON. Nothing is added then.
        TypeError
            If a text or an id is no string, or metadata are no dict. Nothing is embedded then.
        """
        texts = list(texts)
        rows = _rows(texts, metadatas, ids)
        return self._put(rows, self.embedding.embed_documents(texts))

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do what `add_texts` does."""
        texts = list(texts)
        rows = _rows(texts, metadatas, ids)
        vectors = await self.embedding.aembed_documents(texts)
        added: list[str] = await run_in_executor(None, self._put, rows, vectors)
        return added

    def _put(self, rows: list[Row], vectors: Sequence[Sequence[float]]) -> list[str]:
        if len(vectors) != len(rows):
            raise ValueError(
                f"expected {len(rows)} vectors from the embedding, one for each text, got "
                f"{len(vectors)}"
            )
        pairs = zip(rows, vectors, strict=True)
        self._documents.put(row._replace(vector=vector) for row, vector in pairs)
        return [row.id for row in rows]

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Delete the documents of these ids, or all documents; unknown ids are passed over.

        Returns
        -------
        bool
            True.
        """
        self._documents.remove(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Get the documents of these ids, in their order; unknown ids are passed over."""
        return [_document(row) for row in self._documents.get(ids)]

    # Searches -----------------------------------------------------------------------------

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the k documents nearest to a text; ``filter=`` says among which."""
        return _first(self.similarity_search_with_score(query, k, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Do what `similarity_search` does."""
        return _first(await self.asimilarity_search_with_score(query, k, **kwargs))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Find the k documents nearest to a vector; ``filter=`` says among which."""
        return _first(self.similarity_search_with_score_by_vector(embedding, k, **kwargs))

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """Find the k documents nearest to a text, with their distances: smaller is nearer."""
        vector = self.embedding.embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """Do what `similarity_search_with_score` does."""
        vector = await self.embedding.aembed_query(query)
        found: list[tuple[Document, float]] = await run_in_executor(
            None, self.similarity_search_with_score_by_vector, vector, k, filter
        )
        return found

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """Find the k documents nearest to a vector, with their distances: smaller is nearer."""
        found = self._documents.search(embedding, k, _keep(filter))
        return [(_document(row), distance) for row, distance in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Find k documents near a text and, by their cosine, far from each other.

        Parameters
        ----------
        query : str
            The text.
        k : int, default=4
            How many documents.
        fetch_k : int, default=20
            How many of the nearest they are chosen from.
        lambda_mult : float, default=0.5
            1 chooses the nearest, 0 the most different.
        **kwargs : object
            ``filter``.
        """
        vector = self.embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does."""
        vector = await self.embedding.aembed_query(query)
        chosen: list[Document] = await self.amax_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, **kwargs
        )
        return chosen

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does, for a vector."""
        check_count("fetch_k", fetch_k)
        near = self.similarity_search_with_score_by_vector(embedding, fetch_k, **kwargs)
        rows = self._documents.get(str(document.id) for document, _ in near)
        chosen = maximal_marginal_relevance(
            np.asarray(embedding, dtype=np.float32),
            np.array([row.vector for row in rows]).tolist(),
            lambda_mult,
            k,
        )
        return [_document(rows[place]) for place in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self.relevance_score_fn is not None:
            return self.relevance_score_fn
        metric = self._documents.metric
        if metric not in RELEVANCE:
            raise ValueError(
                f"{metric} distances have no bounds from which to tell a relevance from 0 to 1: "
                "give the store a relevance_score_fn"
            )
        relevance = RELEVANCE[metric]
        return lambda distance: min(max(relevance(distance), 0.0), 1.0)

    # Whole stores -------------------------------------------------------------------------

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store of texts; as `add_texts`, and the parameters of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Do what `from_texts` does."""
        store = cls(embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def dump(self, path: str | PathLike[str]) -> None:
        """Write all documents and vectors to a file, as `omendb.Index.save` does.

        Raises
        ------
        ValueError
            If there was no document yet.
        """
        self._documents.save(path)

    @classmethod
    def load(cls, path: str | PathLike[str], embedding: Embeddings, **kwargs: Any) -> Self:
        """Load a store that `dump` wrote. The file says which metric it has.

        Parameters
        ----------
        path : str or os.PathLike
            The file.
        embedding : Embeddings
            The one that its vectors are from.
        **kwargs : object
            ``relevance_score_fn``.

        Raises
        ------
        ValueError
            If the file is damaged, or of another kind.
        TypeError
            If a metric is given.
        """
        if "metric" in kwargs:
            raise TypeError("expected no metric, which the file says: leave metric= out")
        documents = Documents.load(path)
        store = cls(embedding, metric=documents.metric, **kwargs)
        store._documents = documents
        return store


def _rows(
    texts: list[str],
    metadatas: list[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> list[Row]:
    """Rows that lack their vectors."""
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise ValueError(
                f"expected {name} to be as many as the texts, {len(texts)}, got {len(values)}"
            )
    none = [None] * len(texts)
    given = zip(
        none if ids is None else ids, texts, none if metadatas is None else metadatas, strict=True
    )
    rows = [
        Row(str(uuid.uuid4()) if id is None else id, text, {} if metadata is None else metadata)
        for id, text, metadata in given
    ]
    for place, row in enumerate(rows):
        try:
            if row.text is None:  # which other frameworks' documents may have
                raise TypeError(f"expected the text of the document {row.id!r}, got None")
            encoded(row)
        except (TypeError, ValueError) as error:
            error.add_note(f"It is the document at place {place}.")  # the id may be a new one
            raise
    return rows


def _document(row: Row) -> Document:
    return Document(id=row.id, page_content=row.text or "", metadata=row.metadata)


def _first(found: list[tuple[Document, float]]) -> list[Document]:
    return [document for document, _ in found]


def _keep(filter: Filter | None) -> Callable[[Row], bool] | None:
    """Which rows a filter lets through."""
    if filter is None:
        return None
    if callable(filter):
        return lambda row: bool(filter(_document(row)))
    if not isinstance(filter, dict):
        raise TypeError(f"expected filter to be a dict or a function, got {type(filter).__name__}")
    for key, value in filter.items():
        operators = [key, *value] if isinstance(value, dict) else [key]
        for name in operators:
            if str(name).startswith("$"):
                raise ValueError(
                    f"a filter of a dict compares for equality and knows no operator {name!r}: "
                    "give a function of a document instead"
                )
    wanted = filter.items()
    return lambda row: all(key in row.metadata and row.metadata[key] == is_ for key, is_ in wanted)
