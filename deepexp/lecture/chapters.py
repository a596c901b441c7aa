"""The lecture in the order of its slides: which demonstrations and which presets belong to each chapter.

Standard library only, so that the list of names is there at once.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Demo:
    """A demonstration: `deepexp/lecture/NAME.py`."""

    name: str
    summary: str


@dataclass(frozen=True)
class Preset:
    """A training run or a sweep: `conf/experiment/NAME.yaml`, whose first comment says what it is."""

    name: str
    shows: str
    """What to look for in its curves."""
    against: tuple[Literal["epochs", "steps", "seconds"], ...] = ("epochs",)
    """What its curves are drawn against."""
    baseline: str | None = None
    """The label of the runs whose best accuracy the others have to reach; the page shows how soon they do."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of the slides."""

    title: str
    parts: tuple[Demo | Preset, ...]


CHAPTERS = (
    Chapter(
        "Batch processing",
        (Demo("batch_vs_loop", "one matrix product for a batch against one product per sample, timed"),),
    ),
    Chapter(
        "Stochastic gradient descent",
        (
            Demo("gradient_descent", "full batch, mini-batches and single samples; sum and mean; redundant data"),
            Preset(
                "minibatch_size",
                "Small batches make more updates of an epoch and get further in it; large ones use the processor "
                "better, so that the order against seconds can be another one.",
                against=("epochs", "seconds"),
            ),
        ),
    ),
    Chapter(
        "Limitation of the gradient descent",
        (Demo("curvature", "one step size and slopes of different curvature: which converge, and how fast"),),
    ),
    Chapter(
        "Momentum and moment estimation",
        (
            Demo("trajectories", "the paths of optimizers on surfaces in two dimensions; animate=true for a film"),
            Demo("update_rules", "every optimizer's first steps, under gradients of different scale"),
            Preset(
                "momentum", "Momentum multiplies the length of a lasting step by 1/(1−γ); too much of both overshoots."
            ),
            Preset("optimizers", "Every rule lowers the loss; how fast depends on a learning rate that suits it."),
            Demo("parameter_groups", "one optimizer, several groups of parameters with options of their own"),
        ),
    ),
    Chapter(
        "A full example",
        (
            Demo("initialisation", "variances of activations and gradients through a deep net, against the formulas"),
            Preset(
                "initialisation",
                "How soon a deep net trains, and whether it does, depends on the scale of its weights.",
            ),
            Preset("lecture_mnist", "The small network reaches about one per cent of test errors on MNIST."),
        ),
    ),
    Chapter(
        "Dropout",
        (
            Demo("dropout_mask", "masks, the scaling that keeps the mean, and nothing at test time"),
            Preset("dropout", "Dropout raises the training error and narrows its distance to the test error."),
        ),
    ),
    Chapter(
        "Batch normalisation",
        (
            Demo("batch_norm_statistics", "statistics of the batch and running ones, γ and β, training and test"),
            Preset(
                "batch_norm_lr",
                "With batch normalisation the learning rate can be multiplied.",
                against=("steps",),
                baseline="batch_norm=false",
            ),
        ),
    ),
    Chapter(
        "Residual networks",
        (
            Demo("strided_identity", "the identity across a change of size: a regular grid, channels of zeros"),
            Demo("residual_block", "the block, how near it begins to the identity, and parameters of ResNet-20 to 110"),
            Preset("shortcuts", "The ways to carry the identity across a change of size differ little."),
            Preset("plain_vs_residual", "Deeper plain nets train worse than shallower ones; residual ones do not."),
            Preset("resnet20_cifar10", "The network of He et al. (2015) at its own schedule; in full, for a GPU."),
        ),
    ),
    Chapter(
        "Loading data",
        (Demo("loaders", "pictures that lie on the device against pictures that are loaded while training"),),
    ),
    Chapter(
        "Neuro-surgery and fine-tuning",
        (
            Demo("surgery", "Monster: AlexNet's first layer in a network of our own, frozen and then not"),
            Preset("monster_cifar10", "The borrowed layer is frozen for half the epochs, never, or throughout."),
        ),
    ),
)


def demos() -> list[Demo]:
    """All demonstrations in order."""
    return [part for part in parts() if isinstance(part, Demo)]


def presets() -> list[Preset]:
    """All presets in order."""
    return [part for part in parts() if isinstance(part, Preset)]


def parts() -> list[Demo | Preset]:
    """All parts in order."""
    return [part for chapter in CHAPTERS for part in chapter.parts]
