"""The typed face of the extension module; the docstrings live in the Rust source."""

from collections.abc import Callable
from os import PathLike
from typing import Any, Literal, TypeAlias, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Hits", "Index", "RadiusHits", "RecallReport", "__version__", "kernels"]
__version__: str

_Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_Progress: TypeAlias = bool | Callable[[int, int], object]

def kernels() -> dict[str, Any]: ...

@final
class Hits:
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def distances(self) -> _Floats: ...
    @property
    def exact(self) -> NDArray[np.bool_] | bool: ...
    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class RadiusHits:
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def distances(self) -> _Floats: ...
    @property
    def exact(self) -> NDArray[np.bool_] | bool: ...
    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class RecallReport:
    @property
    def target(self) -> float: ...
    @property
    def recall(self) -> float: ...
    @property
    def lower_bound(self) -> float: ...
    @property
    def effort(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def queries(self) -> str: ...
    @property
    def table(self) -> list[tuple[int, float, float]]: ...
    def plot(self, ax: Any = None) -> Any: ...
    def _repr_html_(self) -> str: ...

@final
class Index:
    @overload
    def __new__(
        cls,
        vectors: ArrayLike,
        *,
        dim: int | None = None,
        metric: str = "euclidean",
        ids: ArrayLike | None = None,
        copy: bool = False,
        method: Literal["exact", "graph"] = "exact",
        seed: int = 0,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> Index: ...
    @overload
    def __new__(
        cls,
        vectors: None = None,
        *,
        dim: int,
        metric: str = "euclidean",
        ids: None = None,
        copy: bool = False,
        method: Literal["exact", "graph"] = "exact",
        seed: int = 0,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> Index: ...
    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        method: Literal["auto", "exact", "graph"] = "auto",
        effort: int | None = None,
        filter: ArrayLike | None = None,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> Hits: ...
    def search_radius(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        filter: ArrayLike | None = None,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> RadiusHits: ...
    def build_graph(
        self, *, seed: int = 0, threads: int | None = None, progress: _Progress = False
    ) -> None: ...
    def tune(
        self,
        recall: float = 0.95,
        k: int = 10,
        *,
        queries: ArrayLike | None = None,
        threads: int | None = None,
    ) -> RecallReport: ...
    def save(self, path: str | PathLike[str], *, progress: _Progress = False) -> None: ...
    @staticmethod
    def load(
        path: str | PathLike[str],
        *,
        verify: bool = False,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> Index: ...
    def check(self) -> dict[str, int] | None: ...
    def add(
        self,
        vectors: ArrayLike,
        ids: ArrayLike | None = None,
        *,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> NDArray[np.int64]: ...
    def remove(self, ids: ArrayLike) -> None: ...
    def update(
        self,
        ids: ArrayLike,
        vectors: ArrayLike,
        *,
        threads: int | None = None,
        progress: _Progress = False,
    ) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def effort(self) -> int: ...
    @property
    def has_graph(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def vectors(self) -> NDArray[Any]: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: object, /) -> bool: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def _repr_html_(self) -> str: ...
