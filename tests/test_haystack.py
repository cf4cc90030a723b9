"""Haystack's own tests of a document store, and what they do not ask.

`make test-adapters` runs this file, in an environment of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("haystack", reason="runs by make test-adapters")

from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite
from reference import run_for

import omendb
from omendb.haystack import OmenDocumentStore, OmenEmbeddingRetriever


class EveryTest(
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
    async_suite.CountDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
):
    """All that Haystack has for document stores."""

    # What no policy means is for the store to say, and its test to be given here.
    def test_write_documents(self, document_store: Any) -> None:
        document = Document(content="one")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        assert document_store.filter_documents() == [document]

    async def test_write_documents_async(self, document_store: Any) -> None:
        document = Document(content="one")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        assert document_store.filter_documents() == [document]


class TestStandard(EveryTest):
    @pytest.fixture
    def document_store(self) -> OmenDocumentStore:
        return OmenDocumentStore()


class TestStandardOfALoadedStore(suite.DocumentStoreBaseExtendedTests):
    """An empty store that has had documents and lain in a file."""

    @pytest.fixture
    def document_store(self, tmp_path: Path) -> OmenDocumentStore:
        store = OmenDocumentStore(str(tmp_path / "empty.omen"), metric="euclidean")
        store.write_documents([Document(content="gone", embedding=[1.0] * 768)])
        store.delete_all_documents()
        store.save_to_disk()
        return OmenDocumentStore(str(tmp_path / "empty.omen"), metric="euclidean")

    test_write_documents = EveryTest.test_write_documents


def documents(rng: np.random.Generator, count: int = 100, dim: int = 8) -> list[Document]:
    """Documents of which every third has no embedding."""
    return [
        Document(
            id=str(i),
            content=f"text {i}",
            meta={"number": i, "of": {"three": i % 3}, "kind": "ab"[i % 2]},
            embedding=None if i % 3 == 2 else rng.standard_normal(dim).tolist(),
        )
        for i in range(count)
    ]


def equals(field: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": "==", "value": value}


FILTERS: list[dict[str, Any] | None] = [
    None,
    {},
    equals("meta.kind", "a"),
    equals("meta.of.three", 1),
    equals("meta.number", 7),
    equals("content", "text 31"),
    equals("meta.absent", 1),
    {"field": "meta.number", "operator": "not in", "value": [1, 3]},
    {
        "operator": "OR",
        "conditions": [
            {"field": "meta.number", "operator": ">=", "value": 90},
            {
                "operator": "NOT",
                "conditions": [
                    {"field": "meta.number", "operator": ">", "value": 10},
                    equals("meta.kind", "b"),
                ],
            },
        ],
    },
]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
@pytest.mark.parametrize("top_k", [3, 500])
def test_retrieval_answers_as_the_store_in_memory(
    rng: np.random.Generator, filters: dict[str, Any] | None, metric: str, top_k: int
) -> None:
    function: Any = {"cosine": "cosine", "inner_product": "dot_product"}[metric]
    reference = InMemoryDocumentStore(embedding_similarity_function=function, shared=False)
    store = OmenDocumentStore(metric=metric)
    written, query = documents(rng), rng.standard_normal(8).tolist()
    reference.write_documents(written)
    store.write_documents(written)
    for with_embedding in (False, True):
        options: dict[str, Any] = {"filters": filters, "return_embedding": with_embedding}
        expected = reference.embedding_retrieval(query, top_k=top_k, **options)
        found = store.embedding_retrieval(query, top_k=top_k, **options)
        assert [d.score for d in found] == pytest.approx([d.score for d in expected])
        assert [replace(d, score=0) for d in found] == [replace(d, score=0) for d in expected]


def test_other_metrics_score_by_minus_the_distance() -> None:
    store = OmenDocumentStore(metric="l2")
    store.write_documents([Document(content="x", embedding=[3.0, 4.0])])
    [found] = store.embedding_retrieval([0.0, 0.0])
    assert found.score == -5


def test_documents_come_back_whole() -> None:
    written = [
        Document(
            content="ä\N{SNOWMAN}\0",
            meta={"content": "a name of a field", "embedding": 3, "é": [1, 2.5, None, {"x": "y"}]},
            embedding=[0.1, 1e-300],
        ),
        Document(blob=ByteStream(b"\x00\xff", meta={"page": 1}, mime_type="image/png"), score=0.5),
        Document(content="", sparse_embedding=SparseEmbedding([1, 5], [0.5, 0.25])),
    ]
    store = OmenDocumentStore()
    store.write_documents(written)
    assert store.filter_documents() == written
    [found] = store.embedding_retrieval([1.0, 0.0], return_embedding=True)
    assert replace(found, score=None) == written[0]


def test_embeddings_may_come_after_documents_without(rng: np.random.Generator) -> None:
    store = OmenDocumentStore()
    assert store.embedding_retrieval([1.0, 2.0]) == []
    store.write_documents([Document(id="a"), Document(id="b")])
    assert store.embedding_retrieval([1.0, 2.0]) == []
    store.write_documents([Document(id="c", embedding=[1.0, 2.0]), Document(id="d")])
    assert [d.id for d in store.embedding_retrieval([1.0, 2.0])] == ["c"]
    assert [d.id for d in store.filter_documents()] == ["a", "b", "c", "d"]
    overwritten = Document(id="a", embedding=[2.0, 0.0])
    assert store.write_documents([overwritten], DuplicatePolicy.OVERWRITE) == 1
    assert [d.id for d in store.embedding_retrieval([2.0, 0.0])] == ["a", "c"]
    with pytest.raises(ValueError, match=r"2.* 3|3.* 2"):
        store.write_documents([Document(id="e", embedding=[1.0, 2.0, 3.0])])
    with pytest.raises(ValueError, match=r"2.* 3|3.* 2"):
        store.embedding_retrieval([1.0, 2.0, 3.0])
    store.delete_documents(["a", "c"])
    store.write_documents([Document(id="e", embedding=[1.0, 2.0, 3.0])])
    assert [d.id for d in store.embedding_retrieval([1.0, 2.0, 3.0])] == ["e"]
    assert store.count_documents() == 3


def test_an_index_is_kept_or_forgotten_with_all_documents() -> None:
    store = OmenDocumentStore()
    store.write_documents([Document(embedding=[1.0, 2.0])])
    index = store.index
    store.delete_all_documents()
    assert store.index is index
    store.delete_all_documents(recreate_index=True)
    assert store.index is None


def test_many_documents_without_embeddings_do_not_hide_the_others(rng: np.random.Generator) -> None:
    store = OmenDocumentStore()
    store.write_documents([Document(id=str(i)) for i in range(300)])
    # Zeros, which stand for no embedding, are nearer.
    far = [Document(id=f"far {i}", embedding=[-1.0, 0.1 * i]) for i in range(3)]
    store.write_documents(far)
    assert {d.id for d in store.embedding_retrieval([1.0, 0.0])} == {"far 0", "far 1", "far 2"}


@pytest.mark.parametrize("policy", [DuplicatePolicy.NONE, DuplicatePolicy.FAIL])
def test_failing_writes_write_nothing(policy: DuplicatePolicy) -> None:
    store = OmenDocumentStore()
    a, b = Document(id="a", content="1"), Document(id="b", content="2")
    store.write_documents([a])
    for several in ([b, Document(id="a", content="3")], [b, b]):
        with pytest.raises(DuplicateDocumentError, match="is there already"):
            store.write_documents(several, policy)
        assert store.filter_documents() == [a]


def test_policies_count_what_they_wrote() -> None:
    store = OmenDocumentStore()
    first, second = Document(id="a", content="1"), Document(id="a", content="2")
    assert store.write_documents([first, second], DuplicatePolicy.SKIP) == 1
    assert store.filter_documents() == [first]
    assert store.write_documents([first, second], DuplicatePolicy.OVERWRITE) == 2
    assert store.filter_documents() == [second]
    assert store.write_documents([first], "overwrite") == 1
    assert store.filter_documents() == [first]
    assert store.write_documents([]) == 0
    with pytest.raises(ValueError, match="'replace' is not a valid DuplicatePolicy"):
        store.write_documents([first], "replace")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"meta": {"day": object()}}, "document 'x' cannot be kept as JSON"),
        ({"meta": {"n": float("inf")}}, "document 'x' cannot be kept as JSON"),
        ({"meta": {"a": [{1: 2}]}}, "document 'x' .* keys to be strings, got 1"),
        ({"meta": {"a": "\ud800"}}, "metadata of the document 'x' .* as UTF-8"),
        ({"content": "\ud800"}, "text of the document 'x' .* as UTF-8"),
        ({"embedding": [1.0, float("nan")]}, "NaN"),
        ({"embedding": []}, "0"),
        ({"embedding": ["a", "b"]}, "lists of numbers"),
        ({"embedding": [1.0, None]}, "null"),
    ],
)
@pytest.mark.parametrize("embedded", [True, False])
def test_documents_that_cannot_be_kept_are_refused(
    fields: dict[str, Any], error: str, embedded: bool
) -> None:
    document = Document(id="x", **fields)
    before = [Document(id="a", embedding=[1.0, 2.0] if embedded else None)]
    store = OmenDocumentStore()
    for kept in ([], before):
        store.write_documents(kept)
        with pytest.raises((TypeError, ValueError), match=error):
            store.write_documents([Document(id="b"), document])
        with pytest.raises((TypeError, ValueError), match=error):
            store.write_documents([Document(id="a"), document], DuplicatePolicy.OVERWRITE)
        assert store.filter_documents() == kept


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="metric"):
        OmenDocumentStore(metric="hamming")
    with pytest.raises(ValueError, match="dtype to be"):
        OmenDocumentStore(dtype="int8")
    store: Any = OmenDocumentStore()
    store.write_documents([Document(embedding=[1.0])])
    wrong: list[Any] = [0, -1, None, 2.5, True]
    for top_k in wrong:
        error = ValueError if top_k in (0, -1) else TypeError
        with pytest.raises(error, match="expected top_k to be"):
            store.embedding_retrieval([1.0], top_k=top_k)
        with pytest.raises(error, match="expected top_k to be"):
            OmenEmbeddingRetriever(store, top_k=top_k)
    other: Any = InMemoryDocumentStore(shared=False)
    with pytest.raises(TypeError, match="OmenDocumentStore"):
        OmenEmbeddingRetriever(other)
    with pytest.raises(ValueError, match="path"):
        store.save_to_disk()
    with pytest.raises(TypeError, match="expected a list of ids"):
        store.delete_documents("fox")


def test_float32_takes_half_and_rounds(tmp_path: Path) -> None:
    store = OmenDocumentStore(tmp_path / "store.omen", dtype="float32")
    store.write_documents([Document(embedding=[0.1, 0.5])])
    assert store.index is not None
    assert store.index.vectors.dtype == np.float32
    assert store.filter_documents()[0].embedding == [float(np.float32(0.1)), 0.5]
    store.save_to_disk()
    again = OmenDocumentStore(tmp_path / "store.omen", dtype="float32")
    assert again.filter_documents() == store.filter_documents()
    with pytest.raises(ValueError, match="pass dtype='float32'"):
        OmenDocumentStore(tmp_path / "store.omen")


def test_a_store_comes_back_from_its_file(rng: np.random.Generator, tmp_path: Path) -> None:
    path = str(tmp_path / "store.omen")
    store = OmenDocumentStore(path)
    assert store.count_documents() == 0
    with pytest.raises(ValueError, match="nothing to save"):
        store.save_to_disk()
    written = documents(rng)
    store.write_documents(written)
    assert store.index is not None
    store.index.build_graph()
    store.save_to_disk()
    again = OmenDocumentStore.from_dict(store.to_dict())
    assert again.index is not None
    assert again.index.has_graph
    assert again.filter_documents() == written
    query = rng.standard_normal(8).tolist()
    assert again.embedding_retrieval(query) == store.embedding_retrieval(query)
    with pytest.raises(ValueError, match="pass metric='cosine'"):
        OmenDocumentStore(path, metric="euclidean")
    omendb.Index(np.eye(3)).save(path)
    with pytest.raises(
        ValueError, match=r"columns id, text and metadata.* got id \(int64\), vector"
    ):
        OmenDocumentStore(path)


@pytest.mark.parametrize("policy", [FilterPolicy.MERGE, "replace"])
def test_a_pipeline_comes_back_from_its_text(
    rng: np.random.Generator, tmp_path: Path, policy: FilterPolicy | str
) -> None:
    store = OmenDocumentStore(tmp_path / "store.omen")
    store.write_documents(documents(rng))
    store.save_to_disk()
    pipeline = Pipeline()
    retriever = OmenEmbeddingRetriever(
        store, equals("meta.kind", "a"), top_k=7, filter_policy=policy
    )
    pipeline.add_component("retriever", retriever)
    query = rng.standard_normal(8).tolist()
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["omendb.haystack"])
    for one in (pipeline, again):
        found = one.run({"retriever": {"query_embedding": query}})["retriever"]["documents"]
        assert found == store.embedding_retrieval(query, equals("meta.kind", "a"), top_k=7)
        given = {"query_embedding": query, "filters": equals("meta.of.three", 1), "top_k": 100}
        found = one.run({"retriever": given})["retriever"]["documents"]
        kinds = {document.meta["kind"] for document in found}
        assert kinds == ({"a"} if policy is FilterPolicy.MERGE else {"a", "b"})
    answers = asyncio.run(retriever.run_async(query, return_embedding=True))["documents"]
    assert answers == asyncio.run(
        store.embedding_retrieval_async(query, equals("meta.kind", "a"), 7, return_embedding=True)
    )
    assert all(document.embedding is not None for document in answers)


def test_threads_may_write_delete_and_search_at_once(rng: np.random.Generator) -> None:
    store = OmenDocumentStore()
    written = documents(rng, dim=4)
    store.write_documents(written)

    def work(number: int) -> None:
        store.write_documents(written[number * 30 :][:30], DuplicatePolicy.OVERWRITE)
        store.update_by_filter(equals("meta.number", number), {"by": number})
        found = store.embedding_retrieval(written[99].embedding or [], return_embedding=True)
        assert found[0].id == "99"
        assert [d.id for d in found if d.embedding is None] == []
        store.write_documents([Document(id=f"of {number}")])
        store.delete_documents([f"of {number}"])

    run_for(1.5, *[lambda _, number=number: work(number) for number in range(3)])
    assert sorted(int(d.id) for d in store.filter_documents()) == list(range(100))
