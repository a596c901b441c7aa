"""Pictures for TensorBoard: grids of samples and filters, and the confusion matrix.

Drawn with Pillow, which torchvision needs anyhow: it loads in milliseconds and brings a font, where
matplotlib would take the better part of a second. Plots for reports do not belong here.
"""

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (150, 150, 150)
_RIGHT, _WRONG = (31, 119, 180), (214, 39, 40)  # for cells on the diagonal and beside it
_GAP = 4  # pixels between the pictures of a grid
_MOST_LABELLED_CLASSES = 30  # beyond them, the cells are too small to write in
_LONGEST_NAME = 14  # characters


def sample_grid(images: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Samples with their class names.

    `images`: uint8 (samples, channels, height, width); `labels`: (samples,), indices of `classes`.
    """
    tiles = [_fitted(_to_picture(image), smallest=64, largest=128) for image in images]
    names = [_shortened(classes[label]) for label in labels.tolist()]
    return _grid(tiles, names)


def filter_grid(weight: Tensor) -> Image.Image:
    """The kernels of a convolution, each scaled by its own largest weight; mid-grey is zero.

    `weight`: (filters, channels, height, width). Three channels are shown as colours; of any other
    number, the mean is shown.
    """
    weight = weight.detach().float().cpu()
    if weight.shape[1] != 3:
        weight = weight.mean(dim=1, keepdim=True)  # (filters, 1, height, width)
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    shades = (127.5 * (1 + weight / largest)).round().clamp(0, 255).to(torch.uint8)
    return _grid([_fitted(_to_picture(kernel), smallest=40, largest=128) for kernel in shades])


def first_filters(model: nn.Module) -> Tensor | None:
    """Weights of the model's first convolution over pictures, if it has one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight
    return None


def draw_confusion_matrix(matrix: Tensor, classes: Sequence[str]) -> Image.Image:
    """A confusion matrix (classes, classes) as a picture: the darker a cell, the larger its share of the row.

    Rows are the true classes, columns the predicted ones. The numbers and the names are written
    where there are at most 30 classes.
    """
    count = len(classes)
    labelled = count <= _MOST_LABELLED_CLASSES
    cell = 44 if count <= 12 else 32 if labelled else max(2, 700 // count)
    names = [_shortened(name) for name in classes]
    # TensorBoard shows a picture at about two thirds of its size.
    font, small = ImageFont.load_default(18), ImageFont.load_default(16 if count <= 12 else 13)
    longest = max(font.getlength(name) for name in names)
    margin = int(max(longest, 18)) + 12 if labelled else 12
    left, top = margin + 24, margin + 28
    side = count * cell
    canvas = Image.new("RGB", (left + side + 12, top + side + 12), _PAPER)
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp_min(1)
    cells = Image.fromarray(_cell_colours(shares).numpy())
    canvas.paste(cells.resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw = ImageDraw.Draw(canvas)
    for row, column in matrix.nonzero().tolist() if labelled else []:
        corner = (left + column * cell, top + row * cell)
        ink = _PAPER if shares[row, column] > 0.5 else _INK
        centre = (corner[0] + cell / 2, corner[1] + cell / 2)
        draw.text(centre, str(int(matrix[row, column])), fill=ink, font=small, anchor="mm")
    for index, name in enumerate(names if labelled else []):
        middle = (index + 0.5) * cell
        draw.text((left - 8, top + middle), name, fill=_INK, font=font, anchor="rm")
        if longest < cell:
            draw.text((left + middle, top - 6), name, fill=_INK, font=font, anchor="ms")
        else:
            _draw_upwards(canvas, (left + middle, top - 6), name, font)
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_FAINT)
    draw.text((left, 2), "predicted class", fill=_FAINT, font=font)
    _draw_upwards(canvas, (16, top + side), "true class", font, _FAINT)
    return canvas


def _cell_colours(shares: Tensor) -> Tensor:
    """Colours uint8 (classes, classes, 3) for shares of a row (classes, classes)."""
    right = torch.eye(len(shares), dtype=torch.bool).unsqueeze(-1)
    full = torch.where(right, torch.tensor(_RIGHT), torch.tensor(_WRONG))  # (…, 3)
    # The square root makes a single error in a hundred visible.
    strength = shares.sqrt().unsqueeze(-1)
    return (255 + (full - 255) * strength).round().to(torch.uint8)


def _draw_upwards(
    canvas: Image.Image,
    foot: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: tuple[int, int, int] = _INK,
) -> None:
    """Text turned by a quarter, that begins at `foot` and is centred on it."""
    left, top, right, bottom = font.getbbox(text)
    strip = Image.new("RGB", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2), _PAPER)
    ImageDraw.Draw(strip).text((-left, -top), text, fill=ink, font=font)
    turned = strip.rotate(90, expand=True)
    canvas.paste(turned, (round(foot[0] - turned.width / 2), round(foot[1] - turned.height)))


def _to_picture(image: Tensor) -> Image.Image:
    """A picture out of uint8 (channels, height, width); of other than 3 channels, the first."""
    pixels = image.cpu()
    if pixels.shape[0] == 3:
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    return Image.fromarray(pixels[0].contiguous().numpy()).convert("RGB")


def _fitted(picture: Image.Image, smallest: int, largest: int) -> Image.Image:
    """The picture with its longer side between the two: whole pixels repeated, or shrunk."""
    side = max(picture.size)
    if side > largest:
        scale = largest / side
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return picture.resize(size, Image.Resampling.BILINEAR)
    repeat = math.ceil(smallest / side)
    return picture.resize((picture.width * repeat, picture.height * repeat), Image.Resampling.NEAREST)


def _grid(tiles: Sequence[Image.Image], names: Sequence[str] | None = None) -> Image.Image:
    """Tiles of one size side by side in a rectangle wider than high, each above its name."""
    font = ImageFont.load_default(12)
    columns = math.ceil(math.sqrt(1.6 * len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    label_width = max((math.ceil(font.getlength(name)) for name in names or ()), default=0)
    width = max(tiles[0].width, label_width) + _GAP
    height = tiles[0].height + _GAP + (14 if names else 0)
    canvas = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, tile in enumerate(tiles):
        x, y = _GAP + index % columns * width, _GAP + index // columns * height
        canvas.paste(tile, (x + (width - _GAP - tile.width) // 2, y))
        if names:
            foot = (x + (width - _GAP) / 2, y + tile.height + 1)
            draw.text(foot, names[index], fill=_INK, font=font, anchor="ma")
    return canvas


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
