"""Opening a scene: header, band roles, area of interest, sample, stretch; the order of the checks is here."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geosam.errors import RunError, SceneError
from geosam.options import SceneOptions
from geosam.scene.aoi import read_aoi
from geosam.scene.bands import band_roles, display_bands
from geosam.scene.checks import check_header, check_whole, layout_warnings
from geosam.scene.collar import black_corners, with_nodata
from geosam.scene.files import FileReader
from geosam.scene.grid import pixel_size_m
from geosam.scene.header import Box, Header, Reader
from geosam.scene.ortho import Block, Scene
from geosam.scene.pixels import Decoder
from geosam.scene.stack import PREFIX, StackReader, stack_title
from geosam.scene.stretch import IDENTITY, fit_stretch

SAMPLE_PX = 1_000_000
"""Pixels that the stretch is fitted to."""
SCAN_ROWS = 256


def open_scene(source: Any, options: SceneOptions) -> Scene:
    """What :meth:`Scene.open` does."""
    name, reader = _reader(source)
    if options.nodata is not None:
        reader = with_nodata(reader, options.nodata)
    check_header(reader.header, name, options.allow_no_crs)
    roles = band_roles(reader.header, name, options.bands)
    check_whole(reader, name)
    shared = tuple(
        dict.fromkeys([*display_bands(roles.roles), *([roles.roles["nir"]] if "nir" in roles.roles else [])])
    )
    geobox = _geobox(reader.header)
    aoi = read_aoi(options.aoi, geobox, name) if options.aoi is not None else None
    crop = aoi.box if aoi is not None else Box(0, 0, *reader.header.shape)
    scene = Scene(
        source=name,
        name=_stem(name),
        geobox=GeoBox((crop.height, crop.width), geobox.transform @ Affine.translation(crop.col, crop.row), geobox.crs),
        bands=roles.roles,
        dtype=reader.header.dtype,
        count=reader.header.count,
        stretch=IDENTITY,
        has_crs=reader.header.crs is not None,
        native_gsd_m=float(np.sqrt(np.prod(pixel_size_m(geobox)))),
        valid_fraction=0.0,
        warnings=(*roles.warnings, *layout_warnings(reader.header, name)),
        decoder=Decoder(reader, roles.alpha, shared),
        crop=crop,
        aoi=aoi,
    )
    scene = _looked_at(scene)
    return scene.at_gsd(options.gsd) if isinstance(options.gsd, float) else scene


def _reader(source: Any) -> tuple[str, Reader]:
    if isinstance(source, str | Path):
        text = str(Path(source).expanduser()) if isinstance(source, Path) or source.startswith("~") else source
        reader = StackReader.open(text) if text.startswith(PREFIX) else FileReader.open(text)
        return stack_title(text), reader
    import xarray

    if not isinstance(source, xarray.DataArray):
        what = type(source).__name__
        raise SceneError(
            f"A scene is a path, a URL or an xarray.DataArray, not a {what}; a Dataset: .to_dataarray('band')."
        )
    from geosam.scene.arrays import ArrayReader

    name = str(source.name) if source.name is not None else "memory"
    return name, ArrayReader.open(source, name)


def _geobox(header: Header) -> GeoBox:
    transform = header.transform if header.crs is not None else Affine.identity()
    return GeoBox(header.shape, transform, header.crs)


def _stem(name: str) -> str:
    last = re.split(r"[/\\!]", name.split("?")[0].rstrip("/\\"))[-1]
    return Path(last.strip("\"'")).stem or last or name


def _looked_at(scene: Scene) -> Scene:
    """The scene with its stretch, fitted to a sample.

    Raises:
        SceneError: No pixel is valid, or the sample cannot be read.
    """
    bands = display_bands(scene.bands)
    look = replace(scene, bands={"red": bands[0], "green": bands[1], "blue": bands[2]})
    try:
        found = look.sample(("red", "green", "blue"), SAMPLE_PX)
        fraction = float(found.valid.mean())
        if fraction == 0:
            found = _first_valid(look)
    except RunError as error:
        raise SceneError(str(error)) from None
    stretch = fit_stretch(found.values, found.valid, scene.is_eight_bit)
    doubts = (*_doubts(scene), *black_corners(look))
    return replace(scene, stretch=stretch, valid_fraction=fraction, warnings=(*scene.warnings, *doubts))


def _first_valid(scene: Scene) -> Block:
    """The sample found nothing: look at every strip until one has data."""
    for window in scene.strips(SCAN_ROWS):
        if scene.read_valid(window).any():
            return scene.read(window, ("red", "green", "blue"))
    where = "no pixel inside --aoi with data" if scene.aoi is not None else "no pixel with data: all are nodata or NaN"
    raise SceneError(f"{scene.source} has {where}. Check the file's nodata value and mask.")


def _doubts(scene: Scene) -> tuple[str, ...]:
    """A word where the alpha band is neither 0 nor full for most pixels: imagery, then, tagged alpha by mistake."""
    alpha = scene.decoder.alpha
    if alpha is None or scene.count != 4 or scene.decoder.header.palette is not None:
        return ()
    plain = replace(scene, decoder=replace(scene.decoder, alpha=None), bands={"alpha": alpha})
    values = plain.sample(("alpha",), SAMPLE_PX // 16).values
    if float(((values > 0) & (values < values.max(initial=0))).mean()) < 0.5:
        return ()
    named = ",".join(f"{role}={band}" for role, band in scene.bands.items())
    return (
        f"{scene.source}: band {alpha} is tagged alpha but looks like imagery. "
        f"If it is near infrared, say --bands {named},nir={alpha}.",
    )
