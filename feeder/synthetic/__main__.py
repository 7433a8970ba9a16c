"""Write synthetic people as raw files of NTU RGB+D, for demonstrations and tests.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0

The same arguments write the same bytes. OUT appears once it is complete.
"""

from pathlib import Path

from feeder.cli import CommandLine, script
from feeder.synthetic import ACTIONS, write_ntu

# flag: default, lowest and highest value, what it is
FLAGS = {
    "classes": (10, 2, len(ACTIONS), "actions"),
    "subjects": (12, 3, 40, "people"),
    "repetitions": (5, 1, 64, "repetitions of each action by each person"),
    "cameras": (1, 1, 3, "views of each performance"),
    "seed": (0, 0, 2**32 - 1, "seed of the performances; the people stay the same"),
}


def get_parser() -> CommandLine:
    """Return the command line; its flags are the arguments of `write_ntu`."""
    parser = CommandLine(prog="python -m feeder.synthetic", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    for name, (default, low, high, what) in FLAGS.items():
        text = f"{what}, {low} .. {high} ({default})"
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=text)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the command line describes."""
    parser = get_parser()
    args = parser.parse_args(argv)
    for name, (_, low, high, _) in FLAGS.items():
        if not low <= (value := getattr(args, name)) <= high:
            parser.error(f"--{name} {value}: choose {low} .. {high}")
    print(f"{args.out}: {write_ntu(**vars(args))} clips")


if __name__ == "__main__":
    main()
