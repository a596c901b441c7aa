"""An animated GIF of lines that grow over a still picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FRAMES = 60
FRAME_MILLISECONDS = 100
LAST_MILLISECONDS = 2500
PIXELS_PER_INCH = 72
SHADES = 12


@dataclass(frozen=True)
class Trail:
    """A line that grows along its points, and the mark at its head."""

    line: "Line2D"
    head: "Line2D"
    points: np.ndarray
    """(n, 2): x and y."""


def gif(figure: "Figure", trails: Sequence[Trail]) -> bytes:
    """The figure with its trails growing, each at a constant pace, all of them whole in the last frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(PIXELS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    for trail in trails:
        trail.line.set_animated(True)
        trail.head.set_animated(True)
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)  # all but the trails is drawn once
    pictures = []
    for frame in range(FRAMES):
        canvas.restore_region(still)
        for trail in trails:
            reached = max(1, round((frame + 1) / FRAMES * len(trail.points)))
            trail.line.set_data(trail.points[:reached, 0], trail.points[:reached, 1])
            trail.head.set_data(trail.points[reached - 1 : reached, 0], trail.points[reached - 1 : reached, 1])
            for artist in (trail.line, trail.head):
                assert artist.axes is not None
                artist.axes.draw_artist(artist)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB"))
    return _encoded(pictures)


def _encoded(pictures: Sequence[Image.Image]) -> bytes:
    palette = _palette()
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _palette() -> Image.Image:
    """The colours of all plots in shades up to white, as one palette for all frames.

    A palette made from the frames would drop the colours of thin lines.
    """
    shades = np.linspace(0, 1, SHADES)[:, None]
    full = [tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5)) for colour in plotting.COLOURS]
    colours = np.concatenate([255 + shades * (np.array(colour) - 255) for colour in full])  # (shades of all, 3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.round().astype(np.uint8).tobytes())
    return palette
