import pytest
import torch
from torch import nn

from deepexp.run import pictures


def test_picture_of_a_confusion_matrix_is_dark_where_the_samples_are():
    matrix = torch.tensor([[90, 10, 0], [0, 100, 0], [0, 0, 0]])
    picture = pictures.draw_confusion_matrix(matrix, ["a", "b", "c"])
    cell = 44
    left, top = picture.width - 12 - 3 * cell, picture.height - 12 - 3 * cell
    colours = [
        [picture.getpixel((left + column * cell + 3, top + row * cell + 3)) for column in range(3)] for row in range(3)
    ]
    white = (255, 255, 255)
    assert colours[1] == [white, (31, 119, 180), white]
    assert colours[0][2] == white
    assert colours[2] == [white] * 3  # a class without samples, not a division by zero
    red, green, blue = colours[0][1]
    assert red > green and red > blue, "an error is red"
    assert sum(white) > sum(colours[0][1]) > sum(colours[0][0])


@pytest.mark.parametrize("count", [1, 2, 12, 30, 31, 100, 300])
def test_any_number_of_classes_can_be_drawn(count):
    names = [f"class number {index} of many" for index in range(count)]
    picture = pictures.draw_confusion_matrix(torch.eye(count, dtype=torch.int64), names)
    assert max(picture.size) < 1400


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 5, 9), (3, 300, 200)])
def test_sample_grid_shows_the_samples(shape):
    images = torch.full((5, *shape), 200, dtype=torch.uint8)
    picture = pictures.sample_grid(images, torch.tensor([0, 1, 1, 0, 1]), ["cat", "a" * 50])
    shown = picture.convert("RGB").getcolors(1 << 16)
    assert max(shown)[1] in [(200, 200, 200), (255, 255, 255)]
    assert sum(count for count, colour in shown if colour == (200, 200, 200)) > 5 * 64 * 30
    assert max(picture.size) < 1000


def test_sample_grid_keeps_colours_and_orientation():
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[0, 0, :, 32:] = 255  # the right half is red
    picture = pictures.sample_grid(image, torch.tensor([0]), ["x"])
    assert picture.getpixel((4 + 48, 4 + 10)) == (255, 0, 0)
    assert picture.getpixel((4 + 16, 4 + 50)) == (0, 0, 0)


def test_filter_grid_has_zero_in_the_middle_and_its_own_scale_for_each():
    weight = torch.zeros(2, 1, 2, 2)
    weight[0, 0, 0, 0], weight[0, 0, 0, 1] = 1e-3, -1e-3
    picture = pictures.filter_grid(weight)
    pixel = 20  # a weight is drawn as 20 × 20
    grey = {picture.getpixel((4 + pixel // 2 + pixel * x, 4 + pixel // 2)) for x in (0, 1)}
    assert grey == {(255, 255, 255), (0, 0, 0)}
    assert picture.getpixel((4 + pixel // 2, 4 + pixel + pixel // 2)) == (128, 128, 128)


def test_filter_grid_can_be_drawn_with_weights_that_are_not_finite():
    pictures.filter_grid(torch.full((4, 3, 5, 5), torch.nan))


def test_first_filters_are_those_of_the_first_convolution():
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)))
    assert pictures.first_filters(model) is model[1][0].weight
    assert pictures.first_filters(nn.Linear(2, 2)) is None
