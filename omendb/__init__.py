"""Nearest neighbours, exact at matrix-product speed or by a graph with measured recall."""

from omendb._core import (
    Explanation,
    HealthReport,
    Hits,
    Index,
    RadiusHits,
    RecallReport,
    Records,
    WhyNot,
    __version__,
)
from omendb.capi import get_include, get_library
from omendb.graphs import Duplicates, KnnGraph, duplicates, join, knn_graph

__all__ = [
    "Duplicates",
    "Explanation",
    "HealthReport",
    "Hits",
    "Index",
    "KnnGraph",
    "RadiusHits",
    "RecallReport",
    "Records",
    "WhyNot",
    "__version__",
    "duplicates",
    "get_include",
    "get_library",
    "join",
    "knn_graph",
]
