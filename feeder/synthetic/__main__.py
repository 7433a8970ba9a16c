"""Write synthetic people as raw files of NTU RGB+D or PKU-MMD, for demonstrations and tests.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0
    python -m feeder.synthetic OUT --format pku --part 2

The same arguments write the same bytes; after an interruption, the same command completes the folder.
"""

from pathlib import Path

from feeder.cli import CommandLine, script
from feeder.synthetic.files import write_ntu, write_pku
from feeder.synthetic.motions import ACTIONS

# lowest and highest of each number; PKU-MMD part 2 has no class 12
NTU = {"classes": (2, len(ACTIONS)), "subjects": (2, 40), "repetitions": (1, 64), "cameras": (1, 3), "seed": (0, 2**63)}
PKU = {"part": (1, 2), "classes": (2, 11), "subjects": (3, 13), "repetitions": (1, 26), "cameras": (1, 3), "seed": (0, 2**63)}


def get_parser() -> CommandLine:
    """Return the command line; options that are not given have the defaults of `write_ntu` or `write_pku`."""
    ranges = {name: "{} .. {}, pku {} .. {}".format(*NTU[name], *PKU[name]) for name in NTU}
    parser = CommandLine(prog="python -m feeder.synthetic", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write: new, empty, or with a part of the same data set")
    parser.add_argument("--format", choices=("ntu", "pku"), default="ntu", help="data set to imitate (default ntu)")
    parser.add_argument("--part", type=int, choices=(1, 2), help="part of PKU-MMD (default 1)")
    parser.add_argument("--classes", type=int, help=f"actions: {ranges['classes']} (default 10)")
    parser.add_argument("--subjects", type=int, help=f"people: {ranges['subjects']} (default 12, pku 5)")
    parser.add_argument("--repetitions", type=int, help=f"of each action: {ranges['repetitions']} (default 5, pku 1)")
    parser.add_argument("--cameras", type=int, help=f"views of each action: {ranges['cameras']} (default 1, pku 3)")
    parser.add_argument("--seed", type=int, help="of the performances; the people remain the same (default 0)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the command line describes."""
    parser = get_parser()
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    out, ntu = given.pop("out"), given.pop("format") == "ntu"
    ranges = NTU if ntu else PKU
    for name, number in given.items():
        if name not in ranges:
            parser.error(f"--{name} goes with --format pku")
        low, high = ranges[name]
        if not low <= number <= high:
            parser.error(f"--{name} {number}: give {low} .. {high}")
    names = write_ntu(out, **given) if ntu else write_pku(out, **given)
    print(f"{out}: {len(names)} {'clips' if ntu else 'videos'}")


if __name__ == "__main__":
    main()
