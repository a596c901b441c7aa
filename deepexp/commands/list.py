"""usage: deepexp list [GROUP]

Show what can be chosen, with a line each. An option is chosen as GROUP=NAME (`model=resnet`), a preset as
experiment=NAME, and its size as scale=quick, standard or full (`deepexp list experiment` shows each). Options marked
with * are the defaults. `./conf` names the options that come from the folder that deepexp was called from;
all others are deepexp's own.
"""

from collections.abc import Iterator, Sequence

from deepexp import paths
from deepexp.config import catalogue, presets
from deepexp.config.catalogue import Option
from deepexp.errors import InputError
from deepexp.text.suggest import no_such
from deepexp.text.terminal import cut_to_terminal


def main(argv: Sequence[str]) -> int:
    """Print every group, or those that are named."""
    groups = catalogue.groups()
    for name in argv:
        if name not in groups:
            raise InputError(no_such("group", name, groups))
    shown = {name: groups[name] for name in argv or groups}
    rows = {group: list(_rows(options, with_scales=bool(argv))) for group, options in shown.items()}
    width = max(len(name) for found in rows.values() for _, name, _ in found)
    for group, found in rows.items():
        print(group)
        for mark, name, text in found:
            print(cut_to_terminal(f"  {mark} {name.ljust(width)}  {text}".rstrip()))
        print()
    print(f"deepexp's own: {paths.CONF_DIR}")
    theirs = paths.user_conf_dir()
    if theirs is not None:
        print(f"./conf: {theirs}")
    return 0


def _rows(options: Sequence[Option], *, with_scales: bool) -> Iterator[tuple[str, str, str]]:
    """(mark, name, text) of each option and, below a preset, of its scales."""
    for option in options:
        is_default = option.name == catalogue.defaults().get(option.group) and not option.hidden
        mark = "*" if is_default else " "
        origin = "./conf  " if option.mine else ""
        text = "hidden: deepexp has an option of this name; rename it" if option.hidden else option.summary
        yield mark, option.name, f"{origin}{text}"
        if with_scales and option.group == presets.GROUP:
            for scale in presets.options(option.name):
                yield " ", f"  {presets.SCALE}={scale.name}", scale.summary
