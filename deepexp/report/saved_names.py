"""What the classes of a run's data are called: published names, else those that its checkpoint holds."""

from deepexp.errors import InputError
from deepexp.report.runs import Run


def names_of_classes(run: Run) -> tuple[str, ...] | None:
    """A name for each class, where they are published or a checkpoint of the run holds them, else None.

    No file of the data is looked at: it may not be here.
    """
    from deepexp.data import cifar, mnist  # torch comes with them

    published = {
        "deepexp.data.cifar.cifar10": cifar.CIFAR10.classes,
        "deepexp.data.cifar.cifar100": cifar.CIFAR100.classes,
        "deepexp.data.mnist.fashion_mnist": mnist.FASHION_MNIST.classes,
        "deepexp.data.mnist.mnist": mnist.MNIST.classes,
    }
    return published.get(str(run.config.get("data._target_"))) or _saved(run)


def _saved(run: Run) -> tuple[str, ...] | None:
    from deepexp import checkpoint

    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        try:
            content = checkpoint.load(run.path / "checkpoints" / name)
        except InputError:
            continue  # pruned or damaged: numbers will do, and code that needs the weights reports it
        pictures = content.get("pictures")
        names = pictures.get("classes") if isinstance(pictures, dict) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None
