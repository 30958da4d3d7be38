"""All public names of Raster Vision's packages and the keys of builders, each loaded when it is used.

    import rastervision.api as rv

    rv.RasterSourceConfig.builder(rv.RASTERIO_SOURCE).with_uri("a.tif").build()

A name of a package that is not installed says which one to install. ``from rastervision.api import *`` leaves out
such names and those that need PyTorch. The list of names is generated: see ``scripts/generate_api.py``.
"""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, not_in_all=("rastervision.pytorch_learner",))
