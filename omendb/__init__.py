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

__all__ = [
    "Explanation",
    "HealthReport",
    "Hits",
    "Index",
    "RadiusHits",
    "RecallReport",
    "Records",
    "WhyNot",
    "__version__",
    "get_include",
    "get_library",
]
