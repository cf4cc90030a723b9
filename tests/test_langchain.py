"""LangChain's own tests of a vector store, and what they do not ask.

`make test-adapters` runs this file, in an environment of its own.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("langchain_tests", reason="runs by make test-adapters")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests
from reference import run_for

import omendb
from omendb.langchain import OmenVectorStore

WORDS = [f"word {i}" for i in range(200)]
METADATA = [{"number": i, "even": i % 2 == 0, "of": ["many", i % 5]} for i in range(200)]


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return OmenVectorStore(self.get_embeddings())


class TestStandardOfALoadedStore(VectorStoreIntegrationTests):
    """An empty store that has had documents and lain in a file."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> VectorStore:
        store = OmenVectorStore.from_texts(["gone"], self.get_embeddings(), metric="euclidean")
        store.delete()
        store.dump(tmp_path / "empty.omen")
        return OmenVectorStore.load(tmp_path / "empty.omen", self.get_embeddings())


class Plane(Embeddings):
    """Texts of two numbers are vectors; asynchronous calls are counted."""

    def __init__(self) -> None:
        self.awaited = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(number) for number in text.split()]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.awaited += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.awaited += 1
        return self.embed_query(text)


@pytest.fixture
def embedding() -> Embeddings:
    return DeterministicFakeEmbedding(size=16)


@pytest.fixture
def store(embedding: Embeddings) -> OmenVectorStore:
    return OmenVectorStore.from_texts(WORDS, embedding, METADATA, ids=list(map(str, range(200))))


FILTERS: dict[str, tuple[Any, Callable[[Document], bool]]] = {
    "nothing": (None, lambda _: True),
    "an empty dict": ({}, lambda _: True),
    "a value": ({"even": True}, lambda document: document.metadata["even"]),
    "a list": ({"of": ["many", 3]}, lambda document: document.metadata["number"] % 5 == 3),
    "two values": (
        {"even": False, "of": ["many", 1]},
        lambda document: document.metadata["number"] % 10 == 1,
    ),
    "one document": ({"number": 7}, lambda document: document.metadata["number"] == 7),
    "a key that is not there": ({"absent": None}, lambda _: False),
    "a function": (
        lambda document: document.page_content.endswith("9"),
        lambda document: document.page_content.endswith("9"),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("k", [1, 4, 150, 500])
def test_searches_answer_as_the_store_in_memory(
    store: OmenVectorStore, embedding: Embeddings, name: str, k: int
) -> None:
    given, meant = FILTERS[name]
    reference = InMemoryVectorStore(embedding)
    reference.add_texts(WORDS, METADATA, ids=list(map(str, range(200))))
    for query in ("word 3", "something else"):
        expected = reference.similarity_search_with_score(query, k, filter=meant)
        found = store.similarity_search_with_score(query, k, filter=given)
        assert [document for document, _ in found] == [document for document, _ in expected]
        np.testing.assert_allclose(
            [1 - distance for _, distance in found], [score for _, score in expected], atol=1e-6
        )
        assert store.similarity_search(query, k, filter=given) == [d for d, _ in expected]
        vector = embedding.embed_query(query)
        assert store.similarity_search_by_vector(vector, k, filter=given) == [
            d for d, _ in expected
        ]


def test_a_filter_is_asked_about_the_nearest_documents_alone(store: OmenVectorStore) -> None:
    asked: list[str | None] = []

    def accept(document: Document) -> bool:
        asked.append(document.id)
        return True

    found = store.similarity_search("word 3", 2, filter=accept)
    assert asked[:2] == [document.id for document in found]
    assert len(asked) == 8


@pytest.mark.parametrize(
    ("filter", "error"),
    [
        ({"$or": []}, "no operator '\\$or'"),
        ({"number": {"$gt": 3}}, "no operator '\\$gt'"),
        ("number = 3", "a dict or a function, got str"),
    ],
)
def test_filters_that_mean_nothing_here_are_refused(
    store: OmenVectorStore, filter: Any, error: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        store.similarity_search("word 3", filter=filter)


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("given", [None, {"even": True}])
def test_marginal_relevance_chooses_as_the_store_in_memory(
    store: OmenVectorStore, embedding: Embeddings, lambda_mult: float, given: dict[str, Any] | None
) -> None:
    reference = InMemoryVectorStore(embedding)
    reference.add_texts(WORDS, METADATA, ids=list(map(str, range(200))))
    arguments: dict[str, Any] = {"k": 5, "fetch_k": 30, "lambda_mult": lambda_mult}
    meant = (lambda document: document.metadata["even"]) if given else None
    expected = reference.max_marginal_relevance_search("word 3", filter=meant, **arguments)
    assert store.max_marginal_relevance_search("word 3", filter=given, **arguments) == expected
    found = asyncio.run(store.amax_marginal_relevance_search("word 3", filter=given, **arguments))
    assert found == expected
    assert OmenVectorStore(embedding).max_marginal_relevance_search("word 3") == []


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [1, 0.6, 0]),
        ("inner_product", [1, 0.6, 0]),
        ("euclidean", [1, 1 - math.sqrt(0.8) / math.sqrt(2), 0]),
        ("sqeuclidean", [1, 1 - math.sqrt(0.4), 0]),
    ],
)
def test_relevance_is_from_0_to_1(metric: str, expected: list[float]) -> None:
    store = OmenVectorStore.from_texts(["1 0", "0.6 0.8", "-1 0"], Plane(), metric=metric)
    found = store.similarity_search_with_relevance_scores("1 0")
    assert [score for _, score in found] == pytest.approx(expected)
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.3}
    )
    assert [document.page_content for document in retriever.invoke("1 0")] == ["1 0", "0.6 0.8"]


def test_a_metric_without_bounds_needs_a_relevance_of_its_own() -> None:
    store = OmenVectorStore.from_texts(["1 0"], Plane(), metric="manhattan")
    with pytest.raises(ValueError, match="relevance_score_fn"):
        store.similarity_search_with_relevance_scores("1 0")
    store = OmenVectorStore.from_texts(
        ["1 0"], Plane(), metric="l1", relevance_score_fn=lambda distance: 1 / (1 + distance)
    )
    [(_, score)] = store.similarity_search_with_relevance_scores("1 1")
    assert score == 0.5


def test_retrievers_search(store: OmenVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 3, "filter": {"even": True}})
    expected = store.similarity_search("word 8", 3, filter={"even": True})
    assert expected[0].id == "8"
    assert retriever.invoke("word 8") == expected
    assert asyncio.run(retriever.ainvoke("word 8")) == expected
    mmr = store.as_retriever(search_type="mmr", search_kwargs={"k": 3})
    assert mmr.invoke("word 8")[0].id == "8"


def test_asynchronous_calls_await_the_embedding() -> None:
    embedding = Plane()

    async def calls() -> None:
        store = await OmenVectorStore.afrom_texts(["1 0"], embedding, ids=["a"])
        await store.aadd_documents([Document("0 1", id="b")])
        assert [d.id for d in await store.asimilarity_search("0 2", k=1)] == ["b"]
        [(_, distance)] = await store.asimilarity_search_with_score("2 0", k=1)
        assert distance == pytest.approx(0)
        assert [d.id for d in await store.asimilarity_search_by_vector([3, 1], k=1)] == ["a"]
        assert len(await store.amax_marginal_relevance_search("1 1")) == 2

    asyncio.run(calls())
    assert embedding.awaited == 5


def test_ids_are_kept_made_and_replaced(embedding: Embeddings) -> None:
    store = OmenVectorStore(embedding)
    assert store.index is None
    ids = store.add_texts((text for text in ["a", "b", "c"]), ids=["1", None, "1"])
    assert ids[0] == ids[2] == "1" != ids[1]
    assert [document.page_content for document in store.get_by_ids(["1", "none", "1"])] == ["c"]
    assert len(store.index or []) == 2
    documents = [Document("d", id="2"), Document("e", metadata={"x": None})]
    new = store.add_documents(documents)
    assert new[0] == "2"
    assert documents[1].id is None
    assert store.get_by_ids(new) == [documents[0], Document("e", id=new[1], metadata={"x": None})]
    assert store.add_texts([]) == []
    store.delete(["2", "2", "unknown"])
    assert store.get_by_ids(["2"]) == []
    store.delete([])
    assert len(store.index or []) == 3
    store.delete()
    assert store.similarity_search("a") == []
    assert store.get_by_ids(ids) == []
    store.add_texts(["a"], ids=["1"])
    assert [document.id for document in store.similarity_search("a")] == ["1"]


def test_one_string_is_no_list_of_ids(embedding: Embeddings) -> None:
    store = OmenVectorStore(embedding)
    wrong: Any = "fox"
    for texts in ([], ["1", "2", "3"]):
        store.add_texts(texts, ids=list("fox")[: len(texts)])
        for method in (store.delete, store.get_by_ids):
            with pytest.raises(TypeError, match=r"expected a list of ids.* pass \['fox'\]"):
                method(wrong)
        assert len(store.index or []) == len(texts)


def test_from_documents_keeps_ids_and_metadata(embedding: Embeddings) -> None:
    documents = [Document("ä\N{SNOWMAN}\0", id="ö", metadata={"é": [1, 2.5, None, {"x": "y"}]})]
    store = OmenVectorStore.from_documents(documents, embedding, metric="euclidean")
    assert store.similarity_search("x") == documents
    assert store.index is not None
    assert store.index.metric == "euclidean"
    assert store.embeddings is embedding


class Wrong(Embeddings):
    def __init__(self, vectors: Any) -> None:
        self.vectors: list[list[float]] = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.vectors

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[0]


GOOD = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("vectors", "metadatas", "ids", "error"),
    [
        (GOOD, [{}], None, "metadatas to be as many as the texts, 2, got 1"),
        (GOOD, None, ["1"], "ids to be as many as the texts, 2, got 1"),
        (GOOD, None, [], "ids to be as many as the texts, 2, got 0"),
        (GOOD, [{}, {"day": object()}], None, "document .* cannot be kept as JSON"),
        (GOOD, [{}, {"n": math.nan}], None, "document .* cannot be kept as JSON"),
        (GOOD, [{}, {1: "a", "1": "b"}], None, "document .* keys to be strings, got 1"),
        (GOOD, [{}, {"a": [{"b": {None: 1}}]}], None, "document .* keys to be strings, got None"),
        (GOOD, [{}, {"a": "\ud800"}], None, "metadata of the document .* as UTF-8"),
        (GOOD, [{}, [1]], None, r"metadata of the document .* to be a dict, got \[1\]"),
        (GOOD, None, ["1", "\ud800"], r"id of the document '\\ud800' .* as UTF-8"),
        (GOOD, None, ["1", 2], "ids to be strings, got 2"),
        (GOOD[:1], None, None, "2 vectors from the embedding, one for each text, got 1"),
        ([[1.0, 0.0], [0.0]], None, None, "2 numbers|length"),
        ([[1.0, 0.0], [math.nan, 0.0]], None, None, "NaN"),
        ([[1.0, 0.0], None], None, None, "null"),
        ([[1.0, 0.0], [1.0, None]], None, None, "null"),
        ([[1.0, 0.0], ["x", "y"]], None, None, "lists of numbers"),
        ([[1.0, 0.0, 0.0]] * 2, None, None, "2.* 3|3.* 2"),
    ],
)
@pytest.mark.parametrize("filled", [True, False])
def test_nothing_is_added_by_a_call_that_fails(
    vectors: Any, metadatas: Any, ids: Any, error: str, filled: bool
) -> None:
    if not filled and "3.* 2" in error:
        return  # the first vectors say how long vectors are
    before = [Document("1 0", id="1"), Document("1 1", id="2"), Document("0 1", id="3")]
    store = OmenVectorStore(Plane())
    if filled:
        store.add_documents(before)
    store.embedding = Wrong(vectors)
    with pytest.raises((TypeError, ValueError), match=error):
        store.add_texts(["a", "b"], metadatas, ids=ids)
    if ids is None:
        with pytest.raises((TypeError, ValueError), match=error):
            store.add_texts(["a", "b"], metadatas, ids=["2", "4"])  # the first is there already
    store.embedding = Plane()
    assert len(store.index or []) == (3 if filled else 0)
    assert store.similarity_search("1 0") == (before if filled else [])
    assert [row.id for row in store._documents.all()] == (["1", "2", "3"] if filled else [])


@pytest.mark.parametrize(
    ("texts", "metadatas", "error"),
    [
        (["1 0", 3], None, "text of the document 'b' to be a string, got int"),
        (["1 0", None], None, "text of the document 'b', got None"),
        (["1 0", "0 1"], [{}, "x"], "metadata of the document 'b' to be a dict, got 'x'"),
    ],
)
def test_texts_and_metadata_are_looked_at_before_they_are_embedded(
    texts: Any, metadatas: Any, error: str
) -> None:
    embedding = Plane()
    store = OmenVectorStore(embedding)
    with pytest.raises(TypeError, match=error) as raised:
        asyncio.run(store.aadd_texts(texts, metadatas, ids=["a", "b"]))
    assert raised.value.__notes__ == ["It is the document at place 1."]
    with pytest.raises(TypeError, match=error):
        store.add_texts(texts, metadatas, ids=["a", "b"])
    assert embedding.awaited == 0
    assert store.index is None


def test_no_metadata_of_a_text_is_an_empty_dict() -> None:
    metadatas: Any = [None, {"legs": 4}]
    store = OmenVectorStore.from_texts(["1 0", "0 1"], Plane(), metadatas, ids=["a", "b"])
    assert [d.metadata for d in store.get_by_ids(["a", "b"])] == [{}, {"legs": 4}]
    assert [d.id for d in store.similarity_search("1 0", filter={"legs": 4})] == ["b"]


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (-1, ValueError), (None, TypeError)])
def test_k_is_a_whole_number_of_at_least_1(
    store: OmenVectorStore, k: Any, error: type[Exception]
) -> None:
    for one in (store, OmenVectorStore(store.embedding)):
        with pytest.raises(error, match="expected k to be"):
            one.similarity_search("word 3", k=k)


def test_unknown_arguments_of_searches_are_refused(store: OmenVectorStore) -> None:
    with pytest.raises(TypeError, match="fliter"):
        store.similarity_search("word 3", fliter={"number": 3})
    with pytest.raises(ValueError, match="metric"):
        OmenVectorStore(store.embedding, metric="hamming")


def test_a_store_comes_back_from_its_file(
    store: OmenVectorStore, embedding: Embeddings, tmp_path: Path
) -> None:
    store.add_texts(["ä new one"], [{"number": 3}], ids=["3"])
    store.delete(["4"])
    assert store.index is not None
    store.index.build_graph()
    store.dump(tmp_path / "store.omen")
    again = OmenVectorStore.load(tmp_path / "store.omen", embedding)
    assert again.index is not None
    assert again.index.has_graph
    assert again.similarity_search_with_score("word 7", 250) == store.similarity_search_with_score(
        "word 7", 250
    )
    assert again.get_by_ids(["3", "4"]) == [Document("ä new one", id="3", metadata={"number": 3})]
    again.add_texts(["word 4"], ids=["4"])
    assert again.similarity_search("word 4", 1)[0].id == "4"
    # Other programs read it too.
    frame = again.index.get(["3"]).to_pandas()
    assert frame.columns.tolist() == ["id", "vector", "text", "metadata"]


def test_a_file_says_which_metric_it_has(tmp_path: Path) -> None:
    store = OmenVectorStore.from_texts(["1 0", "0.6 0.8"], Plane(), metric="euclidean")
    store.dump(tmp_path / "store.omen")
    with pytest.raises(TypeError, match="expected no metric"):
        OmenVectorStore.load(tmp_path / "store.omen", Plane(), metric="euclidean")
    again = OmenVectorStore.load(tmp_path / "store.omen", Plane())
    found = store.similarity_search_with_relevance_scores("1 0")
    assert again.similarity_search_with_relevance_scores("1 0") == found


def test_files_of_other_kinds_are_refused(embedding: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to save"):
        OmenVectorStore(embedding).dump(tmp_path / "none.omen")
    with pytest.raises(FileNotFoundError):
        OmenVectorStore.load(tmp_path / "none.omen", embedding)
    omendb.Index(np.eye(3)).save(tmp_path / "plain.omen")
    with pytest.raises(
        ValueError, match=r"columns id, text and metadata.* got id \(int64\), vector"
    ):
        OmenVectorStore.load(tmp_path / "plain.omen", embedding)
    (tmp_path / "text.omen").write_text("no index")
    with pytest.raises(ValueError, match="omen"):
        OmenVectorStore.load(tmp_path / "text.omen", embedding)


def test_langchain_indexing_adds_and_cleans_up(embedding: Embeddings) -> None:
    store = OmenVectorStore(embedding)
    manager = InMemoryRecordManager("test")
    manager.create_schema()
    documents = [Document(word, metadata={"source": word}) for word in WORDS[:5]]
    options: dict[str, Any] = {
        "cleanup": "full",
        "source_id_key": "source",
        "key_encoder": "sha256",
    }
    assert index(documents, manager, store, **options)["num_added"] == 5
    counts = index(documents[:3], manager, store, **options)
    assert (counts["num_skipped"], counts["num_deleted"]) == (3, 2)
    assert len(store.index or []) == 3


READERS: dict[str, Callable[[OmenVectorStore, Path], Any]] = {
    "dump": lambda store, folder: store.dump(folder / "store.omen"),
    "get": lambda store, _: store.get_by_ids(["3"]),
    "all": lambda store, _: store._documents.all(),
    "count": lambda store, _: len(store._documents),
    "contains": lambda store, _: "3" in store._documents,
}


@pytest.mark.parametrize("name", READERS)
def test_all_but_searches_wait_for_what_is_being_replaced(
    store: OmenVectorStore, name: str, tmp_path: Path
) -> None:
    reader = threading.Thread(target=READERS[name], args=(store, tmp_path))
    searcher = threading.Thread(target=store.similarity_search, args=("word 3",))
    with store._documents.lock:
        reader.start()
        searcher.start()
        searcher.join(10)
        reader.join(0.2)
        assert reader.is_alive()
        assert not searcher.is_alive()
    reader.join()


def test_threads_may_add_delete_and_search_at_once(store: OmenVectorStore) -> None:
    def search(_: int) -> None:
        found = store.similarity_search("word 150", 50)
        assert found[0].id == "150"
        assert len(found) == 50
        for document in found:
            assert document.page_content == f"word {document.metadata['number']}"

    def replace(turn: int) -> None:
        places = range(turn % 20, 100, 20)
        store.add_texts(
            [WORDS[i] for i in places], [METADATA[i] for i in places], ids=list(map(str, places))
        )

    def come_and_go(turn: int) -> None:
        ids = store.add_texts([WORDS[0]], [METADATA[0]])
        assert [document.id for document in store.get_by_ids([*ids, "199"])] == [*ids, "199"]
        store.max_marginal_relevance_search("word 0", filter={"even": turn % 2 == 0})
        store.delete(ids)

    run_for(1.5, search, replace, come_and_go)
    assert sorted(map(int, store.index.ids.tolist() if store.index else [])) == list(range(200))


def test_columns_of_a_frame_are_ids_and_metadata() -> None:
    store: Any = OmenVectorStore(DeterministicFakeEmbedding(size=4))  # whatever the types say
    ids = np.array(["a", "b"], object)
    assert store.add_texts(["x", "y"], np.array([{"n": 1}, {"n": 2}]), ids=ids) == ["a", "b"]
    assert [found.metadata for found in store.get_by_ids(["a", "b"])] == [{"n": 1}, {"n": 2}]
    for id in (0, False, 7):
        with pytest.raises(TypeError, match="expected ids to be strings"):
            store.add_texts(["z"], ids=[id])
    assert len(store.similarity_search("x", k=np.int8(40), filter=lambda _: True)) == 2
    with pytest.raises(ValueError, match="expected fetch_k to be at least 1"):
        store.max_marginal_relevance_search("x", fetch_k=0)


@pytest.mark.parametrize("wrong", ["id", "text", "metadata", "vector"])
def test_a_file_with_columns_of_other_types_is_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "x.omen"
    columns: dict[str, Any] = {
        "id": ["a", "b"],
        "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        "text": ["x", "y"],
        "metadata": ["{}", "{}"],
    }
    whole = {
        name: pa.array(c, pa.large_string()) for name, c in columns.items() if name != "vector"
    }
    whole["vector"] = columns["vector"]
    other = pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)) if wrong == "vector" else [1, 2]
    for table in (pa.table(whole), pa.table(whole | {wrong: other})):
        omendb.Index.from_frame(table, vector="vector", id="id").save(path)
        if table[wrong].type == whole[wrong].type:
            OmenVectorStore.load(path, DeterministicFakeEmbedding(size=2))
        else:
            with pytest.raises(ValueError, match="no such store has saved"):
                OmenVectorStore.load(path, DeterministicFakeEmbedding(size=2))
