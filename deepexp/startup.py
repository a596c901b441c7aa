"""What must be in the environment before torch is imported. Standard library only."""

import os

MARK = "DEEPEXP_SET_OMP_WAIT_POLICY"
"""In the environment when the policy is deepexp's choice and not the user's."""


def prepare() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the user has chosen otherwise.

    Spinning saves some microseconds where nobody else uses the machine. Where one other process does, threads that
    spin keep each other from working: a step of the lecture's net on two cores became ten times slower.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update({"OMP_WAIT_POLICY": "passive", MARK: "1"})


def users_environment() -> dict[str, str]:
    """The environment without what `prepare` has put into it, for programs to be compared with."""
    environment = dict(os.environ)
    if environment.pop(MARK, None):
        environment.pop("OMP_WAIT_POLICY", None)
    return environment
