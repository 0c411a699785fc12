"""Raster to polygons by strips, and polygons to files.

``polygonize`` takes a water mask strip by strip and gives the polygons that one pass over the
whole raster would give. ``write_rivers`` writes them, whole or not at all.
"""

from geosam.vector.assemble import Strip, polygonize
from geosam.vector.raster import has_crs, polygonize_raster
from geosam.vector.write import check_output, check_path, write_rivers

__all__ = ["Strip", "check_output", "check_path", "has_crs", "polygonize", "polygonize_raster", "write_rivers"]
