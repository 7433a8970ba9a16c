"""Write synthetic people as raw files of NTU RGB+D or PKU-MMD, for demonstrations and tests.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0
    python -m feeder.synthetic OUT --format pku --part 2

The same arguments write the same bytes. OUT appears when it is complete.
"""

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from feeder.cli import CommandLine, script
from feeder.synthetic.files import write_ntu, write_pku
from feeder.synthetic.motions import ACTIONS


def between(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: an integer in low .. high."""

    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise ArgumentTypeError(f"{text} is not in {low} .. {high}")
        return int(text)

    return integer


def get_parser() -> CommandLine:
    """Return the command line; the defaults are those of `write_ntu` or `write_pku`."""
    parser = CommandLine(prog="python -m feeder.synthetic", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=Path, help="folder to write, new or empty")
    add("--format", choices=("ntu", "pku"), default="ntu", help="data set to imitate (default ntu)")
    add("--part", type=int, choices=(1, 2), help="part of PKU-MMD (default 1)")
    add("--classes", type=between(2, len(ACTIONS)), help=f"actions, 2 .. {len(ACTIONS)} (default 10)")
    add("--subjects", type=between(3, 40), help="people, 3 .. 40 (default 12, pku 5)")
    add(
        "--repetitions",
        type=between(1, 64),
        help="repetitions of each action by each person, 1 .. 64 (default 5, pku 1)",
    )
    add("--cameras", type=between(1, 3), help="views of each performance, 1 .. 3 (default 1, pku 3)")
    add(
        "--seed",
        type=between(0, 2**63 - 1),
        help="seed of the performances; the people stay the same (default 0)",
    )
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the command line describes."""
    parser = get_parser()
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    out, ntu = given.pop("out"), given.pop("format") == "ntu"
    if ntu and "part" in given:
        parser.error("--part requires --format pku")
    count = write_ntu(out, **given) if ntu else write_pku(out, **given)
    print(f"{out}: {count} {'clips' if ntu else 'videos'}")


if __name__ == "__main__":
    main()
