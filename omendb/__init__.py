"""Exact nearest neighbours at matrix-product speed."""

from omendb._core import Hits, Index, RadiusHits, __version__

__all__ = ["Hits", "Index", "RadiusHits", "__version__"]
