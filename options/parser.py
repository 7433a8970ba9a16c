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
    """Flags in kebab-case (underscores are accepted), with defaults from YAML files.

    The entries of a YAML file have the names, types and choices of the flags.

    Args:
        recipe: options/RECIPE.yaml has the defaults.
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
        if self.recipe:
            self.set_defaults(**self._read(RECIPES / f"{self.recipe}.yaml"))
        given = self._parse(words)
        config = self._read(given.config) if given.config else {}
        for switch in self.variants:
            if getattr(given, switch) or config.get(switch):
                self.set_defaults(**self._read(RECIPES / f"{switch}.yaml"))
        self.set_defaults(**config)
        return self._parse(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a one-line message."""
        message = " ".join(message.removeprefix("argument ").split())
        self.exit(2, f"{self.prog}: error: {self._source}{message} (see --help)\n")

    def _parse(self, words: list[str], namespace: Any = None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self._refuse(unknown[0].split("=")[0])
        return values

    def _refuse(self, flag: str) -> NoReturn:
        if flag == "--local-rank":  # of torch.distributed.launch
            self.error("unknown --local-rank: start several processes with torchrun --nproc_per_node N")
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        self.error(f"unknown {flag}{f', did you mean {near[0]}?' if near else ''}")

    def _read(self, path: str | Path) -> dict[str, Any]:
        """Return the values of a YAML file by the names of their attributes."""
        self._source = f"{path}: "
        try:
            with open(path, encoding="utf-8") as file:
                entries = yaml.safe_load(file) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.error(getattr(error, "strerror", None) or str(error))
        if not isinstance(entries, dict):
            self.error("has no 'flag: value' lines")
        values = dict(self._convert(f"--{key}".replace("_", "-"), value) for key, value in entries.items())
        self._source = ""
        return values

    def _convert(self, flag: str, value: Any) -> tuple[str, Any]:
        """Return the attribute of a flag and its value in a YAML file, parsed like a command line."""
        action = self._option_string_actions.get(flag) or self._refuse(flag)
        switch = action.nargs == 0
        if flag == "--config":
            self.error("--config: cannot be set in a file")
        if value is None or isinstance(value, bool) != switch:
            self.error(f"{flag}: expected {'true or false' if switch else 'a value'}")
        words = value if isinstance(value, list) and action.nargs else [value]
        return action.dest, value if switch else getattr(self._parse([flag, *map(str, words)]), action.dest)


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
