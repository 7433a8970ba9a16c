"""Raw PKU-MMD videos -> arrays. Running the command again replaces them.

    python pku_gendata.py --data-path DOWNLOAD              # part 1 -> data/pku_v1/{xsub,xview}
    python pku_gendata.py --data-path DOWNLOAD --part 2     # part 2 -> data/pku_v2/{xsub,xview}

DOWNLOAD contains the unpacked official archives. Each label row becomes a sample, processed like an NTU file
and named after its video, row and class id: 0043-L_r20_c05. Labels are class id - 1, with 51 outputs in both
parts. The reference has no such script.
"""

from pathlib import Path

from feeder.cli import script
from feeder.preparation import pku
from feeder.preparation.command import add_flags, prepare, print_list
from options.parser import Parser


def get_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    download = "folder of the unpacked archives (%(default)s)"
    add("--data-path", type=Path, default=Path("data/PKUMMD"), metavar="DIR", help=download)
    for kind in ("skeletons", "labels", "splits"):
        add(f"--{kind}", type=Path, metavar="DIR", help=f"folder of the {kind} (found below --data-path)")
    add("--part", type=int, choices=(1, 2), default=1, metavar="N", help="also called phase (%(default)s)")
    both = ["xsub", "xview"]
    add("--benchmark", nargs="+", choices=both, default=both, metavar="NAME", help="protocols to write")
    add_flags(parser, ("pku_part1", "pku_part2"))
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the part of PKU-MMD on the command line."""
    args = get_parser().parse_args(argv)
    benchmarks = sorted(set(args.benchmark))

    # list the segments
    skeletons = args.skeletons or pku.find(args.data_path, args.part, "skeletons")
    labels = args.labels or pku.find(args.data_path, args.part, "labels")
    splits = {name: pku.find(args.splits or args.data_path, args.part, name) for name in benchmarks}
    sources, notes = pku.plan(skeletons, labels, splits)
    for kind, names in notes.items():
        print_list(kind, names)

    # read, cut, normalise, write, report
    prepare(args, f"pku_part{args.part}", benchmarks, sources, pku.read_clips)


if __name__ == "__main__":
    main()
