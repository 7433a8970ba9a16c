"""Command lines with defaults from YAML: the command line overrides --config FILE, which overrides the recipe."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

RECIPES = Path(__file__).resolve().parent


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Print the value of a flag once: `-j, --workers N`, as Python 3.13 does."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """Flags in kebab-case (underscores are accepted), defaults from a recipe, the nearest flag suggested for an unknown one.

    The entries of a YAML file are parsed as the flags of the same names, so they have the same types and choices.

    Args:
        recipe: name of a YAML file in options/ without suffix; None for no defaults.
        description: first lines of the help.
        variants: switches that have their own recipe options/SWITCH.yaml, applied between `recipe` and --config.
    """

    def __init__(self, recipe: str | None = None, description: str | None = None, variants: Sequence[str] = ()) -> None:
        super().__init__(
            usage="%(prog)s [--flag value ...]", description=description, allow_abbrev=False, formatter_class=HelpFormatter
        )
        self.recipe, self.variants, self._source = recipe, variants, ""
        self.add_argument("--config", metavar="FILE.yaml", help="defaults of this run, by the names of these flags")

    def load_recipe(self) -> None:
        """Make the recipe's values the defaults; call it after all flags are added."""
        self._set_defaults_from(RECIPES / f"{self.recipe}.yaml")

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # argparse's own types are overloads
        """Return the values of all flags; exit with status 2 and one line if the command line is wrong."""
        words = [_kebab(word) for word in (sys.argv[1:] if args is None else args)]
        first = self._parse(words)
        given = _read_yaml(self, first.config) if first.config else {}
        for switch in self.variants:
            if getattr(first, switch) or given.get(switch) is True:
                self._set_defaults_from(RECIPES / f"{switch}.yaml")
        if first.config:
            self._set_defaults_from(Path(first.config))
        return self._parse(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {self._source}{' '.join(message.split())} (see --help)\n")

    def _parse(self, words: list[str], namespace: Any = None) -> argparse.Namespace:
        values, unknown = self.parse_known_args(words, namespace)
        if unknown:
            flags = [name for name in self._option_string_actions if name.startswith("--")]
            near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
            self.error(f"unknown {unknown[0]}{f', did you mean {near[0]}?' if near else ''}")
        return values

    def _set_defaults_from(self, path: Path) -> None:
        self._source = f"{path}: "
        words: list[str] = []
        switches: dict[str, bool] = {}
        for key, value in _read_yaml(self, path).items():
            flag = f"--{str(key).replace('_', '-')}"
            action = self._option_string_actions.get(flag)
            if flag in ("--config", "--help"):
                self.error(f"{key} cannot be set in a file")
            elif action and action.nargs == 0:
                if not isinstance(value, bool):
                    self.error(f"{key} is true or false, not {value!r}")
                switches[action.dest] = value
            elif value is None or isinstance(value, bool | dict):
                self.error(f"{key} has no value" if value is None else f"{key}: {value!r} is not a value of {flag}")
            elif action and isinstance(value, list) and action.nargs not in ("*", "+"):
                self.error(f"{key} takes one value, not {value!r}")
            else:
                words += [flag, *map(str, value if isinstance(value, list) else [value])]
        self.set_defaults(**vars(self._parse(words)) | switches)
        self._source = ""


class OneOrMore(argparse.Action):
    """Store one value as itself and several as a list: `--knn-neighbours 1` is 1, `--knn-neighbours 1 5` is [1, 5]."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs="+", **kwargs)

    def __call__(self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _flag: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def listed(value: Any) -> list:
    """Return the value of a `OneOrMore` flag as a list; None is an empty list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def number(kind: type, low: float, high: float = float("inf"), open_low: bool = False) -> Any:
    """Return an argparse type: a finite number of `kind` in low .. high, without low itself if `open_low`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None
        if not low <= value <= high or value in (float("inf"), low if open_low else None):
            bound = f"above {low:g}" if open_low else f"at least {low:g}"
            raise argparse.ArgumentTypeError(
                f"{text} is not {bound}" + (f" and at most {high:g}" if high < float("inf") else "")
            )
        return value

    return convert


positive_int = number(int, 1)
natural = number(int, 0)
seed = number(int, 0, 2**63 - 1)
positive_float = number(float, 0, open_low=True)
natural_float = number(float, 0)
fraction = number(float, 0, 1)
positive_fraction = number(float, 0, 1, open_low=True)


def _read_yaml(parser: Parser, path: str | Path) -> dict:
    """Return the content of a YAML file of flags; exit with status 2 if it is none."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read --config {path}: {getattr(error, 'strerror', None) or error}")
    except (yaml.YAMLError, RecursionError) as error:
        parser.error(f"{path} is not YAML: {' '.join(str(error).split())}")
    if not isinstance(values or {}, dict):
        parser.error(f"{path} has no 'flag: value' lines")
    return values or {}


def _kebab(word: str) -> str:
    """Return a flag in kebab-case, any other word unchanged."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
