"""usage: deepexp list [GROUP]

Show what can be chosen, with a line each. An option is chosen as GROUP=NAME (`model=resnet`), a preset as
experiment=NAME. Those marked with * are chosen when nothing is said. `./conf` names the options that come from the
folder that deepexp was called from; all others are deepexp's own.
"""

import shutil
import sys
from collections.abc import Sequence

from deepexp import catalogue, paths
from deepexp.catalogue import Option
from deepexp.errors import InputError
from deepexp.suggest import did_you_mean


def main(argv: Sequence[str]) -> int:
    """Print every group, or those that are named."""
    groups = catalogue.groups()
    for name in argv:
        if name not in groups:
            raise InputError(f"{name}: there is no such group{did_you_mean(name, groups)}; one of {', '.join(groups)}")
    shown = {name: groups[name] for name in argv or groups}
    names = [len(option.name) for options in shown.values() for option in options]
    for group, options in shown.items():
        print(group)
        for option in options:
            print(_line(option, max(names)))
        print()
    print(f"deepexp's own: {paths.CONF_DIR}")
    theirs = paths.user_conf_dir()
    if theirs is not None:
        print(f"./conf: {theirs}")
    return 0


def _line(option: Option, width: int) -> str:
    mark = "*" if option.name == catalogue.defaults().get(option.group) else " "
    origin = "./conf  " if option.mine else ""
    text = "hidden: deepexp has an option of this name; rename it" if option.hidden else option.summary
    line = f"  {mark} {option.name.ljust(width)}  {origin}{text}".rstrip()
    columns = shutil.get_terminal_size().columns
    return line[: columns - 1] + "…" if sys.stdout.isatty() and len(line) > columns else line
