"""Write synthetic people as raw files of NTU RGB+D, for demonstrations and tests.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0

The same arguments write the same bytes. OUT appears once it is complete.
"""

from pathlib import Path

from feeder.cli import CommandLine, script
from feeder.synthetic import ACTIONS, write_ntu

# flag: default, smallest and largest value, what it is
FLAGS = {
    "classes": (10, 2, len(ACTIONS), "actions"),
    "subjects": (12, 3, 40, "people"),
    "repetitions": (5, 1, 64, "repetitions of each action by each person"),
    "cameras": (1, 1, 3, "views of each performance"),
}


def get_parser() -> CommandLine:
    """Return the command line; its flags are the arguments of `write_ntu`."""
    parser = CommandLine("feeder.synthetic", __doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=Path, help="folder to write, new or empty")
    for name, (default, low, high, what) in FLAGS.items():
        text, choices = f"{what}, {low} .. {high} ({default})", range(low, high + 1)
        add(f"--{name}", type=int, choices=choices, default=default, metavar="N", help=text)
    text = "seed of the performances; the people stay the same (0)"
    add("--seed", type=int, default=0, metavar="N", help=text)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the command line describes."""
    args = get_parser().parse_args(argv)
    print(f"{args.out}: {write_ntu(**vars(args))} clips")


if __name__ == "__main__":
    main()
