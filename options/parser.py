"""Command lines with defaults from YAML: the command line overrides --config FILE, which overrides the recipe."""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

RECIPES = Path(__file__).resolve().parent


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Print the default of each flag that has one, unless its help ends with a remark in parentheses."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if action.nargs == 0 or default is None or text.endswith(")"):
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} ({shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """Flags in kebab-case (underscores are accepted), with defaults from options/RECIPE.yaml.

    The entries of a YAML file are parsed as the flags of the same names, so they have the same types and choices. Each switch
    in `variants` has its own recipe options/SWITCH.yaml, applied between `recipe` and --config.
    """

    def __init__(
        self, recipe: str | None = None, description: str | None = None, variants: Sequence[str] = ()
    ) -> None:
        usage = "%(prog)s [--flag value ...]"
        super().__init__(
            usage=usage, description=description, allow_abbrev=False, formatter_class=HelpFormatter
        )
        self.recipe, self.variants, self._source = recipe, variants, ""
        self.add_argument("--config", metavar="FILE.yaml", help="defaults, one `flag: value` per line")

    def load_recipe(self) -> None:
        """Make the recipe's values the defaults; call it after all flags are added."""
        self._load(RECIPES / f"{self.recipe}.yaml")

    def parse_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> Any:  # argparse's own types are overloads
        """Return the values of all flags; exit with status 2 and a one-line message if the command line is wrong."""
        given = sys.argv[1:] if args is None else args
        words = [re.sub("^--[^=]*", lambda flag: flag[0].replace("_", "-"), word) for word in given]
        config = self._parse(words).config
        self._load(config)  # may select a variant
        for switch in self.variants:
            if getattr(self._parse(words), switch):
                self._load(RECIPES / f"{switch}.yaml")
                self._load(config)  # overrides the variant
        return self._parse(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a one-line message."""
        self.exit(2, f"{self.prog}: error: {self._source}{' '.join(message.split())} (see --help)\n")

    def _parse(self, words: list[str], namespace: Any = None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(words, namespace)
        if unknown:
            flag = unknown[0].split("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            self.error(f"unknown {flag}{f', did you mean {near[0]}?' if near else ''}")
        return values

    def _load(self, path: str | Path | None) -> None:
        """Make the values of a YAML file, if one is given, the defaults."""
        if path is None:
            return
        self._source = f"{path}: "
        try:
            with open(path, encoding="utf-8") as file:
                entries = yaml.safe_load(file) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.error(getattr(error, "strerror", None) or str(error))
        if not isinstance(entries, dict):
            self.error("has no 'flag: value' lines")
        words, off = [], {}
        for key, value in entries.items():
            flag = f"--{key}".replace("_", "-")
            action = self._option_string_actions.get(flag)
            if flag == "--config":
                self.error("config cannot be set in a file")
            if value is False and action and action.nargs == 0:
                off[action.dest] = False
            elif value is None or value is False:
                self.error(f"{key} has no value")
            elif isinstance(value, list) and action and action.nargs in ("*", "+", 2):
                words += [flag, *map(str, value)]
            else:
                words.append(flag if value is True else f"{flag}={value}")
        self.set_defaults(**vars(self._parse(words)) | off)
        self._source = ""


class OneOrMore(argparse.Action):
    """Store one value as itself and several as a list: `--knn-neighbours 1` is 1, `--knn-neighbours 1 5` is [1, 5]."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs="+", **kwargs)

    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, _flag: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def listed(value: Any) -> list:
    """Return the value of a `OneOrMore` flag as a list; None is an empty list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def number(kind: type, low: float, high: float = float("inf"), open_low: bool = False) -> Any:
    """Return an argparse type: a finite number of `kind` in low .. high, without low itself if `open_low`."""
    bounds = f"above {low}" if open_low else f"at least {low}"
    bounds += f" and at most {high}" if high < float("inf") else ""

    def convert(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high or value == float("inf") or (open_low and value == low):
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    convert.__name__ = "integer" if kind is int else "number"  # for argparse's own message
    return convert


positive_int = number(int, 1)
natural = number(int, 0)
seed = number(int, 0, 2**63 - 1)
positive_float = number(float, 0, open_low=True)
natural_float = number(float, 0)
fraction = number(float, 0, 1)
positive_fraction = number(float, 0, 1, open_low=True)
