"""An argument parser whose defaults come from YAML: the command line wins over --config FILE, which wins over the recipe."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

RECIPES = Path(__file__).resolve().parent


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Names the value of a flag once: `-j, --workers N`, as Python 3.13 does."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """Flags in kebab-case (underscores are taken too), defaults from a recipe, a wrong name answered with the nearest.

    Args:
        recipe: name of a YAML file in options/, without suffix; its keys are flags without the dashes.
        description: first lines of the help.
        variants: switches with a recipe of their own, options/SWITCH.yaml, that lies between `recipe` and --config.
    """

    def __init__(self, recipe: str | None = None, description: str | None = None, variants: Sequence[str] = ()):
        super().__init__(
            usage="%(prog)s [--flag value ...]",
            description=description,
            allow_abbrev=False,
            formatter_class=HelpFormatter,
        )
        self.recipe, self.variants = recipe, variants
        self.add_argument("--config", metavar="FILE.yaml", help="defaults for this run, by the names of these flags")

    def load_recipe(self) -> None:
        """Take the recipe's values as defaults; to be called when all flags are there."""
        if self.recipe:
            self._take_defaults(RECIPES / f"{self.recipe}.yaml")

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # argparse's own types are overloads
        """Return the values of all flags; exits with status 2 and one line where the command line is wrong."""
        args = [_kebab(token) for token in (sys.argv[1:] if args is None else args)]
        before = argparse.ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False, exit_on_error=False)
        before.add_argument("--config")
        try:
            config = before.parse_known_args(args)[0].config
        except argparse.ArgumentError as error:
            self.error(str(error))
        given = {} if config is None else self._read(Path(config))
        for switch in self.variants:
            if f"--{switch}" in args or given.get(switch):
                self._take_defaults(RECIPES / f"{switch}.yaml")
        if config is not None:
            self._take_defaults(Path(config))
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown {unknown[0]}{self._nearest(unknown[0])}")
        return values

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def _read(self, path: Path) -> dict:
        """Return the content of a YAML file of flags."""
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            self.error(f"cannot read --config {path}: {getattr(error, 'strerror', None) or error}")
        except yaml.YAMLError as error:
            self.error(f"{path} is no YAML: {' '.join(str(error).split())}")
        if not isinstance(values or {}, dict):
            self.error(f"{path} holds no 'flag: value' lines")
        return values or {}

    def _take_defaults(self, path: Path) -> None:
        for key, value in self._read(path).items():
            action = self._option_string_actions.get(f"--{str(key).replace('_', '-')}")
            if action is None or action.dest in ("help", "config"):
                self.error(f"{path}: unknown key {key!r}{self._nearest(f'--{key}')}")
            self.set_defaults(**{action.dest: self._convert(path, key, action, value)})

    def _convert(self, path: Path, key: str, action: argparse.Action, value: Any) -> Any:
        """Return a YAML value as the flag itself would have given it."""
        if value is None and action.default is not None:
            self.error(f"{path}: {key} has no value")
        if value is None:
            return None
        if action.nargs == 0:
            if not isinstance(value, bool):
                self.error(f"{path}: {key} is true or false, not {value!r}")
            return value
        if isinstance(action, OneOrMore):
            value = value[0] if isinstance(value, list) and len(value) == 1 else value
        elif isinstance(value, list) != (action.nargs in ("*", "+")):
            self.error(f"{path}: {key} takes {'a list' if action.nargs else 'one value'}, not {value!r}")
        convert = lambda item: self._get_value(action, str(item))  # noqa: E731
        try:
            result = [convert(item) for item in value] if isinstance(value, list) else convert(value)
            for item in result if isinstance(result, list) else [result]:
                self._check_value(action, item)
        except argparse.ArgumentError as error:
            self.error(f"{path}: {key}: {error.message}")
        return result

    def _nearest(self, flag: str) -> str:
        """Return ", did you mean --that?" or nothing."""
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        found = difflib.get_close_matches(flag.split("=")[0].replace("_", "-"), flags, n=1)
        return f", did you mean {found[0]}?" if found else ""


class OneOrMore(argparse.Action):
    """Keeps one value as itself and several as a list: `--knn-neighbours 1` is 1, `--knn-neighbours 1 5` is [1, 5]."""

    def __init__(self, **kwargs: Any):
        super().__init__(nargs="+", **kwargs)

    def __call__(self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _flag: Any = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def listed(value: Any) -> list:
    """Return the value of a `OneOrMore` flag as a list; None is a list without any."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _kebab(token: str) -> str:
    """Return a flag in kebab-case, anything else as it is."""
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    return name.replace("_", "-") + equals + value


def positive_int(text: str) -> int:
    """Return a whole number of at least 1."""
    return _at_least(int, 1, text)


def natural(text: str) -> int:
    """Return a whole number of at least 0."""
    return _at_least(int, 0, text)


def seed(text: str) -> int:
    """Return a whole number of 0 .. 2^63 - 1."""
    value = natural(text)
    if value >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not below 2^63")
    return value


def positive_float(text: str) -> float:
    """Return a finite number above 0."""
    value = _number(float, text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural_float(text: str) -> float:
    """Return a finite number of at least 0."""
    return _at_least(float, 0, text)


def fraction(text: str) -> float:
    """Return a number in 0 .. 1."""
    value = _number(float, text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def positive_fraction(text: str) -> float:
    """Return a number above 0, at most 1."""
    value = fraction(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _at_least(kind: type, least: int, text: str) -> Any:
    value = _number(kind, text)
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
    return value


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {'whole number' if kind is int else 'number'}") from None
