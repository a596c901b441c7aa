"""What the classes of a run's data are called, where that is known without its checkpoint: of published data sets."""

from deepexp.report.runs import Run


def names_of_classes(run: Run) -> tuple[str, ...] | None:
    """The names where they are published and are words, else None: no file of the data is looked at."""
    target = run.config.get("data._target_")
    if target not in ("deepexp.data.cifar.cifar10", "deepexp.data.cifar.cifar100", "deepexp.data.mnist.fashion_mnist"):
        return None
    from deepexp.data import cifar, mnist  # torch comes with them

    published = {
        "deepexp.data.cifar.cifar10": cifar.CIFAR10.classes,
        "deepexp.data.cifar.cifar100": cifar.CIFAR100.classes,
        "deepexp.data.mnist.fashion_mnist": mnist.FASHION_MNIST.classes,
    }
    return published[str(target)]
