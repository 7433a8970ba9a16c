"""Raw PKU-MMD videos -> arrays. Running the command again replaces them.

    python pku_gendata.py --data-path DOWNLOAD              # part 1 -> data/pku_v1/{xsub,xview}
    python pku_gendata.py --data-path DOWNLOAD --part 2     # part 2 -> data/pku_v2/{xsub,xview}

DOWNLOAD contains the unpacked official archives. Each label row becomes a sample, processed like an NTU file
and named after its video, row and class id: 0043-L_r20_c05. Labels are class id - 1, with 51 outputs in both
parts. The reference has no such script.
"""

from pathlib import Path

from feeder.check import print_report
from feeder.cli import script
from feeder.preparation import pku
from feeder.preparation.generate import add_flags, check_replaced, generate
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
    both = list(pku.BENCHMARKS)
    add("--benchmark", nargs="+", choices=both, default=both, metavar="NAME", help="protocols to write")
    add_flags(parser, "data/pku_v1 or data/pku_v2")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the part of PKU-MMD on the command line."""
    args = get_parser().parse_args(argv)
    benchmarks = [name for name in pku.BENCHMARKS if name in args.benchmark]
    out_folder = args.out_folder or Path(f"data/pku_v{args.part}")

    # list the segments, read, cut, normalise, write
    skeletons = args.skeletons or pku.find(args.data_path, args.part, "skeletons")
    labels = args.labels or pku.find(args.data_path, args.part, "labels")
    splits = {name: pku.find(args.splits or args.data_path, args.part, name) for name in benchmarks}
    sources, notes = pku.plan(skeletons, labels, splits, args.part)
    if not args.overwrite:
        check_replaced(out_folder, benchmarks, sources)
    report = generate(sources, pku.read_clips, out_folder, benchmarks, args.workers, args.skip_bad)

    # report
    notes["segments without any body, skipped"] = report.empty
    notes["damaged files or segments, skipped"] = report.bad
    for kind, names in notes.items():
        print(f"{kind}: {len(names)}{', such as' if len(names) > 20 else ''}", *names[:20], sep="\n  ")
    print_report(report, {name: pku.SAMPLE_COUNTS.get((args.part, name)) for name in benchmarks}, out_folder)


if __name__ == "__main__":
    main()
