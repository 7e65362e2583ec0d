"""The phantom: an embedded, made-up H&E data set in which every nucleus is known.

Tissue is laid out in micrometres (`tissue`), rendered by the Beer–Lambert law (`render`) with the
parameters of an organ and of a patient's slide (`styles`), and written as a folder data set with
masks (`write`).
"""

from oncoshift.phantom.render import PhantomTile, render_tile
from oncoshift.phantom.styles import GroupStyle, Organ, draw_style, find_organ
from oncoshift.phantom.write import is_written, render_phantom_tile, write_phantom

__all__ = [
    "GroupStyle",
    "Organ",
    "PhantomTile",
    "draw_style",
    "find_organ",
    "is_written",
    "render_phantom_tile",
    "render_tile",
    "write_phantom",
]
