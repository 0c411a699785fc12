"""The first guess of water: an index or a look, a threshold fitted to the whole scene, and a clean raster.

>>> mask = coarse_mask(Scene.open("ortho.tif"))
>>> mask.reason
'NDWI guarded by NDVI: red, green and NIR are there; two modes, separability 0.86.'
>>> water, valid = mask.read(Window(0, 0, 512, 512))

``auto`` prefers short-wave infrared to near infrared and both to plain RGB, where no colour
rule carries over from one river to the next; there water is what is dark and smooth.
"""

from geosam.coarse.guess import guess_water
from geosam.coarse.mask import CoarseMask, coarse_mask

__all__ = ["CoarseMask", "coarse_mask", "guess_water"]
