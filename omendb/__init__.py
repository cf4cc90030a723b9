"""Nearest neighbours, exact at matrix-product speed or by a graph with measured recall."""

from omendb._core import Hits, Index, RadiusHits, RecallReport, Records, __version__
from omendb.capi import get_include, get_library

__all__ = [
    "Hits",
    "Index",
    "RadiusHits",
    "RecallReport",
    "Records",
    "__version__",
    "get_include",
    "get_library",
]
