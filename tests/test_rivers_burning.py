"""Polygons as pixels, strip by strip: the very pixels of GDAL's rasterize, with every vertex looked at once."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from geosam.rivers import burning, mask
from geosam.rivers.burning import Burning

HEIGHT, WIDTH, PX = 90, 130, 2.0
GRID = GeoBox((HEIGHT, WIDTH), Affine(PX, 0, 1000, 0, -PX, 5000), "EPSG:32632")
TURNED = GeoBox((HEIGHT, WIDTH), Affine(1.7, 0.9, 980, 0.9, -1.7, 4980), "EPSG:32632")


def burnt(polygon, grid, rows):
    found = Burning.of(polygon, grid)
    return np.concatenate([found.rows(top, min(rows, HEIGHT - top)) for top in range(0, HEIGHT, rows)])


def braid(seed, corners):
    """A river with islands that runs out of the grid; with ``corners`` every vertex is a pixel's corner."""
    random = np.random.default_rng(seed)
    course = random.uniform(-0.1, 1.1, (random.integers(4, 40), 2)) * [WIDTH * PX, -HEIGHT * PX] + [1000, 5000]
    river = shapely.buffer(shapely.LineString(course), random.uniform(1, 9), quad_segs=2)
    if not corners:
        return river
    snapped = shapely.transform(river, lambda xy: np.rint(xy / PX) * PX)
    return shapely.make_valid(snapped, method="structure")


@pytest.mark.parametrize("rows", [1, 17, HEIGHT])
@pytest.mark.parametrize(
    ("grid", "corners"), [(GRID, False), (GRID, True), (TURNED, False)], ids=["drawn", "of pixels", "turned"]
)
def test_pixels_are_those_of_gdal(grid, corners, rows):
    for seed in range(12):
        river = braid(seed, corners)
        expected = rasterize([river], grid.shape, transform=grid.affine, dtype="uint8")
        assert 0 < expected.sum() < HEIGHT * WIDTH
        assert np.array_equal(burnt(river, grid, rows), expected)


def test_a_hole_is_dry_and_a_strip_without_water_too():
    ring = shapely.Polygon(shapely.box(1020, 4900, 1100, 4980).exterior, [shapely.box(1040, 4920, 1080, 4960).exterior])
    found = burnt(ring, GRID, 7)
    assert found.sum() == 40 * 40 - 20 * 20
    assert found[20:40, 20:40].sum() == 0
    assert found[:10].sum() == 0


def test_vertices_are_looked_at_once_for_all_strips(tmp_path, monkeypatch):
    """With the size of a mask both its vertices and its strips become more."""
    looked = []

    def counted(*args, **kwargs):
        looked.append(1)
        return shapely.get_coordinates(*args, **kwargs)

    class Counting:
        get_coordinates = staticmethod(counted)

        def __getattr__(self, name):
            return getattr(shapely, name)

    monkeypatch.setattr(burning, "shapely", Counting())
    monkeypatch.setattr(mask, "STRIP_PX", 1)
    grid = GeoBox((2000, 40), GRID.affine, GRID.crs)
    pixels = mask.write_mask(shapely.box(1010, 4000, 1050, 4990), grid, tmp_path / "m.tif")
    assert pixels == 20 * 495
    assert len(looked) == 1
