"""Synthetic people written as raw data, in place of NTU RGB+D or PKU-MMD: for tests, demonstrations and short runs.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0
    python -m feeder.synthetic OUT --format pku --part 2

NTU's cross-subject protocol trains on about 60 % of the subjects; three cameras serve its cross-view protocol. The same
arguments write the same bytes, and a folder that already holds them is left as it is: a run that was interrupted is
started again.
"""

from pathlib import Path

from feeder.cli import CommandLine, script
from feeder.synthetic.files import MAX_SUBJECTS, write_ntu, write_pku
from feeder.synthetic.motions import ACTIONS


def get_parser() -> CommandLine:
    """Return the command line; a number that is not given is the default of `write_ntu` or `write_pku`."""
    parser = CommandLine(prog="python -m feeder.synthetic", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write: new, empty, or with the same data")
    parser.add_argument("--format", choices=("ntu", "pku"), default="ntu", help="raw files of NTU RGB+D or PKU-MMD (ntu)")
    parser.add_argument("--part", type=int, choices=(1, 2), help="of PKU-MMD (default 1)")
    parser.add_argument("--classes", type=int, help=f"actions, 2 .. {len(ACTIONS)}, pku 2 .. 11 (default 10)")
    parser.add_argument("--subjects", type=int, help=f"people, 2 .. {MAX_SUBJECTS}, pku 3 .. 13 (default 12, pku 5)")
    parser.add_argument("--repetitions", type=int, help="of each action by each subject (default 5, pku 1)")
    parser.add_argument("--cameras", type=int, help="views of each performance, 1 .. 3 (default 1, pku 3)")
    parser.add_argument("--seed", type=int, help="another is other performances by the same people (default 0)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set of a command line."""
    parser = get_parser()
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    out, ntu = given.pop("out"), given.pop("format") == "ntu"
    if ntu and "part" in given:
        parser.error("--part goes with --format pku")
    names = write_ntu(out, **given) if ntu else write_pku(out, **given)
    print(f"{out}: {len(names)} {'clips' if ntu else 'videos'}")


if __name__ == "__main__":
    main()
