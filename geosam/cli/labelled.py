"""Options that say how labelled tiles are understood, the same for ``geosam finetune`` and ``geosam evaluate``."""

from __future__ import annotations

from typing import Any

import click

from geosam.cli import shared


def _shares(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        first, last = (float(part) for part in text.split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not of the form FROM:TO, such as 0.5:1.") from None
    if not 0 <= first < last <= 1:
        raise click.BadParameter(f"{text!r} is not a part of the width from 0 to 1, such as 0.5:1.")
    return first, last


def _bands(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) >= 1 for part in parts):
        raise click.BadParameter(f"{text!r} does not name three bands from 1, such as 3,2,1.")
    return tuple(int(part) for part in parts)


def _ids(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise click.BadParameter(f"{text!r} does not list class ids, such as 3,4.")
    return tuple(int(part) for part in parts)


labelled_options = shared.join(
    click.option("--layout", type=click.Choice(["auto", "cityscapes"]), help="What a folder is like.  [default: auto]"),
    click.option("--images", metavar="NAME", help="Subfolder of the images.  [default: images]"),
    click.option("--masks", metavar="NAME", help="Subfolder of the labels.  [default: masks or labels]"),
    click.option("--image-suffix", metavar="TEXT", help="What image names end in, such as _rgb.png."),
    click.option("--label-suffix", metavar="TEXT", help="What label names end in, such as _mask.png."),
    click.option("--image-column", metavar="NAME", help="Column of the images in a table.  [default: image]"),
    click.option("--label-column", metavar="NAME", help="Column of the labels.  [default: label or mask]"),
    click.option("--name-column", metavar="NAME", help="Column of the names.  [default: name]"),
    click.option("--subset", metavar="NAME", help="Configuration of a data set on the hub."),
    click.option("--revision", metavar="NAME", help="Branch, tag or commit of a data set on the hub."),
    click.option("--water-ids", metavar="LIST", callback=_ids, help="Class ids of the labels that are water: 3,4."),
    click.option("--ignore-value", type=int, metavar="N", help="Label value that says nothing and is not counted."),
    click.option("--names", metavar="PATTERN", help="Only images of such a name, such as t[1-6]_*."),
    click.option("--group", "groups", multiple=True, metavar="NAME", help="Only this group; may be repeated."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images, evenly spread."),
    click.option("--columns", metavar="FROM:TO", callback=_shares, help="Only this part of each image's width: 0:0.5."),
    click.option(
        "--image-bands", "bands", metavar="R,G,B", callback=_bands,
        help="Bands of the images that stand for red, green and blue.  [default: the first three]",
    ),
    click.option("--labels", metavar="PATH", help="Polygons of orthoimages, where they do not lie beside them."),
    click.option("--chip", "chip_px", type=int, metavar="PX", help="Side of the chips of orthoimages.  [default: 512]"),
    click.option(
        "--group-by", metavar="COLUMN",
        help="Keep tiles of one place or date in one split; name:REGEX finds it in their names.",
    ),
    click.option(
        "--resplit", is_flag=True, default=None,
        help="Make train, validation and test anew, in whole groups, whatever splits the data have.",
    ),
    click.option("--validation", type=float, metavar="SHARE", help="Split off where there is none.  [default: 0.15]"),
)  # fmt: skip
"""How data are laid out, what of them is taken, and how they are split; each is None, or (), where it is not given."""

FIELDS = (
    "layout", "images", "masks", "image_suffix", "label_suffix", "image_column", "label_column", "name_column",
    "subset", "revision", "water_ids", "ignore_value", "names", "groups", "limit", "columns", "bands", "labels",
    "chip_px", "group_by", "resplit", "validation",
)  # fmt: skip
"""Of :class:`geosam.datasets.DataOptions`, and what the options above are handed on as."""


def typed(given: dict[str, Any]) -> dict[str, Any]:
    """What was given of :data:`FIELDS`."""
    return {name: given[name] for name in FIELDS if given[name] is not None and given[name] != ()}


def option_of(name: str) -> str:
    """What a field is called on the command line."""
    other = {"groups": "group", "bands": "image-bands", "chip_px": "chip", "csv_path": "csv"}
    return "--" + other.get(name, name.replace("_", "-"))
