"""Show anything that can be indexed as an array of which xarray reads only what is asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["lazily_indexed"]


def lazily_indexed(source: Any) -> Any:
    """Return what an ``xarray.Variable`` takes as data.

    Args:
        source: Has ``shape``, ``dtype``, and gives numpy arrays when it is indexed by integers, slices and 1-D arrays,
            each axis for itself.
    """
    from xarray.core.indexing import LazilyIndexedArray

    return LazilyIndexedArray(_array_class()(source))


def _restore(source: Any) -> Any:
    return _array_class()(source)


@lru_cache(maxsize=1)
def _array_class() -> type[Any]:
    from xarray.backends import BackendArray
    from xarray.core.indexing import IndexingSupport, explicit_indexing_adapter

    class LazyArray(BackendArray):
        def __init__(self, source: Any) -> None:
            self.source, self.shape, self.dtype = source, source.shape, source.dtype

        def __getitem__(self, key: Any) -> Any:
            return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self.source.__getitem__)

        def __reduce__(self) -> tuple[Any, ...]:
            # a class made in a function cannot be found by its name
            return _restore, (self.source,)

    return LazyArray
