"""The confusion matrix as a picture with class names."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.confusion import numbered

WHITE, INK, GREY, BLUE = (255, 255, 255), (30, 30, 30), (205, 205, 205), (8, 81, 156)
MARGIN = 10


def draw_confusion(matrix: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Return the picture of a confusion matrix, (height, width, 3) uint8; rows are the clips' classes, columns the predictions.

    The shade of a cell is its share of the row's clips, white none and dark blue all; up to 36 classes it is written
    into the cell, in percent.

    Args:
        matrix: counts (classes, classes), [class, prediction].
        names: of the classes.
    """
    cell = cell_size(len(matrix))
    size = min(15, cell)
    font = ImageFont.load_default(size)
    labels = [shorten(text) for text in numbered(names)]
    left = MARGIN + max(int(font.getlength(label)) for label in labels) + 5
    left = max(left, 150)  # the heading's corner
    top = left  # the columns' names stand upright
    side = cell * len(matrix)
    image = Image.new("RGB", (left + side + MARGIN, top + side + MARGIN), WHITE)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN), "row: class of the clip\ncolumn: taken for", INK, ImageFont.load_default(13))
    for i, label in enumerate(labels):
        middle = round((i + 0.5) * cell)
        pen.text((left - 5, top + middle), label, INK, font, anchor="rm")
        _upright(image, label, left + middle, top - 5, font, size)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (i, j), share in np.ndenumerate(shares):
        _cell(pen, left + j * cell, top + i * cell, cell, share)
    pen.rectangle((left, top, left + side, top + side), outline=INK)
    return np.asarray(image)


def cell_size(classes: int) -> int:
    """Return the width of a cell in pixels: 36 for a few classes, 11 for 120."""
    return int(np.clip(1320 // classes, 11, 36))


def shorten(text: str, length: int = 38) -> str:
    """Return a text of at most `length` characters, cut in its middle: the ends tell names apart."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def shade(share: float) -> tuple[int, int, int]:
    """Return the colour of a share in 0 .. 1; small ones are lifted, so that one clip in a hundred is seen."""
    return tuple(round(w + (b - w) * share**0.6) for w, b in zip(WHITE, BLUE, strict=True))


def _cell(pen: ImageDraw.ImageDraw, x: int, y: int, size: int, share: float) -> None:
    pen.rectangle((x, y, x + size, y + size), fill=shade(share), outline=GREY)
    if share and size == 36:
        colour = WHITE if share > 0.4 else INK
        pen.text((x + size // 2, y + size // 2), f"{100 * share:.0f}", colour, ImageFont.load_default(13), anchor="mm")


def _upright(
    image: Image.Image, text: str, x: int, y: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: int
) -> None:
    """Write a text from bottom to top, which begins at (x, y), in a font of `size` pixels."""
    width, height = int(font.getlength(text)) + 2, int(size * 1.4)
    strip = Image.new("RGB", (width, height), WHITE)
    ImageDraw.Draw(strip).text((0, height // 2), text, INK, font, anchor="lm")
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (x - height // 2, y - width))
