"""Command lines with defaults from YAML: a flag overrides --config, which overrides options/RECIPE.yaml."""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

RECIPES = Path(__file__).resolve().parent


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Append the default to the help of a flag, unless it ends with a remark in parentheses."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if action.nargs == 0 or default is None or text.endswith(")"):
            return text
        return f"{text} ({' '.join(map(str, default)) if isinstance(default, list) else '%(default)s'})"


class Parser(argparse.ArgumentParser):
    """Argument parser with kebab-case flags (underscores are accepted) and defaults from YAML files.

    The entries of a YAML file are read as flags: `lr: 2` is --lr 2, `cos: true` is --cos.

    Args:
        recipe: RECIPE of options/RECIPE.yaml, which has the defaults.
        description: text of --help.
        variants: switches with their own recipes; if --SWITCH is set, options/SWITCH.yaml overrides `recipe`.
    """

    def __init__(
        self, recipe: str = "", description: str | None = None, variants: Sequence[str] = ()
    ) -> None:
        usage = "%(prog)s [--flag value ...]"
        super().__init__(None, usage, description, allow_abbrev=False, formatter_class=HelpFormatter)
        self.recipe, self.variants, self._source = recipe, variants, ""
        self.add_argument("--config", metavar="FILE.yaml", help="defaults, one `flag: value` per line")

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Return the values of all flags; exit with status 2 and a one-line message if one is wrong."""
        words = sys.argv[1:] if args is None else args
        words = [re.sub("^--[^=]*", lambda flag: flag[0].replace("_", "-"), word) for word in words]
        self._read(RECIPES / f"{self.recipe}.yaml" if self.recipe else None)
        config = super().parse_args(words).config
        self._read(config)
        given = vars(super().parse_args(words))
        for switch in filter(given.get, self.variants):
            self._read(RECIPES / f"{switch}.yaml")
        self._read(config)
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a one-line message."""
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]*)", message):
            near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1)
            message = f"unknown {unknown[1]}{f', did you mean {near[0]}?' if near else ''}"
            if unknown[1] == "--local-rank":  # of torch.distributed.launch
                message = "unknown --local-rank: start several processes with torchrun --nproc_per_node N"
        message = " ".join(message.removeprefix("argument ").split())
        self.exit(2, f"{self.prog}: error: {self._source}{message} (see --help)\n")

    def _read(self, path: str | Path | None) -> None:
        """Set the defaults to the values of a YAML file, if any."""
        if not path:
            return
        self._source, words = f"{path}: ", []
        try:
            entries = yaml.safe_load(Path(path).read_text("utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.error(getattr(error, "strerror", None) or str(error))
        if not isinstance(entries, dict) or "config" in entries:
            self.error("expected lines of 'flag: value', and no config")
        for name, value in entries.items():
            flag = f"--{name}".replace("_", "-")
            action = self._option_string_actions.get(flag)
            if action is None or name == "help":
                self.error(f"unrecognized arguments: {flag}")
            switch = action.nargs == 0
            if value is None or isinstance(value, bool) != switch:
                self.error(f"{flag}: expected {'true or false' if switch else 'a value'}")
            if switch:
                words += [flag] if value else []
            elif isinstance(value, list) and action.nargs:
                words += [flag, *map(str, value)]
            else:
                words.append(f"{flag}={value}")
        self.set_defaults(**vars(super().parse_args(words)))
        self._source = ""


def number(kind: type, low: float, high: float = math.inf, above: bool = False) -> Callable[[str], Any]:
    """Return an argparse type: a finite number of `kind` from low to high, excluding low if `above`."""
    bounds = f"{'above' if above else 'at least'} {low}" + (f" and at most {high}" if high < math.inf else "")

    def convert(text: str) -> Any:
        value = kind(text)
        if value == math.inf:
            raise ValueError
        if not low <= value <= high or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    convert.__name__ = "integer" if kind is int else "number"  # for argparse's own message
    return convert


positive_int = number(int, 1)
natural = number(int, 0)
seed = number(int, 0, 2**63 - 1)
positive_float = number(float, 0, above=True)
natural_float = number(float, 0)
fraction = number(float, 0, 1)
positive_fraction = number(float, 0, 1, above=True)
