"""Raw PKU-MMD videos -> arrays. Running the command again replaces them.

    python pku_gendata.py --data-path DOWNLOAD              # part 1 -> data/pku_v1/{xsub,xview}
    python pku_gendata.py --data-path DOWNLOAD --part 2     # part 2 -> data/pku_v2/{xsub,xview}

DOWNLOAD has the unpacked official archives. Each label row becomes a sample, processed like an NTU
file and named after video, row and class id: 0043-L_r20_c05. Labels are class id - 1, with 51
outputs in both parts. The reference has no such script.
"""

from pathlib import Path

from feeder.check import print_report
from feeder.cli import script
from feeder.preparation import pku
from feeder.preparation.generate import default_workers, generate
from options.parser import Parser, positive_int


def get_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    download = "folder of skeletons, labels and splits (%(default)s)"
    add("--data-path", type=Path, default=Path("data/PKUMMD"), metavar="DIR", help=download)
    add(
        "--part",
        type=int,
        choices=(1, 2),
        default=1,
        metavar="N",
        help="1 or 2, also called phase (%(default)s)",
    )
    add("--skip-bad", action="store_true", help="skip damaged files instead of failing at the end")
    add("--out-folder", type=Path, metavar="DIR", help="output folder (data/pku_v1 or data/pku_v2)")
    add(
        "--benchmark",
        nargs="+",
        choices=pku.BENCHMARKS,
        default=pku.BENCHMARKS,
        metavar="NAME",
        help="xsub, xview (both)",
    )
    add(
        "--workers",
        type=positive_int,
        default=default_workers(),
        metavar="N",
        help="processes (all cores, 12 at most)",
    )
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the part of PKU-MMD on the command line."""
    args = get_parser().parse_args(argv)
    benchmarks = [name for name in pku.BENCHMARKS if name in args.benchmark]
    out_folder = args.out_folder or Path(f"data/pku_v{args.part}")

    # list the segments, read, cut, normalise, write
    planned = pku.plan(args.data_path, args.part, benchmarks)
    report = generate(
        planned.sources, pku.read_clips, out_folder, benchmarks, args.workers, args.skip_bad, planned.bad
    )

    # report: number and names of exceptions of each kind, without the names of long segments, of which only the end is lost
    used = sum(bool(source.samples) for source in planned.sources)
    print(f"part {args.part}: {planned.num_videos:,} videos, {used:,} used")
    found = planned.notes | {
        "segments cut at the end of the video": pku.cut_segments(report),
        "segments without any body, skipped": report.empty,
        "damaged files or segments, skipped": report.bad,
    }
    for kind, names in found.items():
        print(f"{kind}: {len(names)}")
        for name in names if kind != pku.LONG else ():
            print(f"  {name}")
    print_report(report, {name: pku.SAMPLE_COUNTS.get((args.part, name)) for name in benchmarks}, out_folder)


if __name__ == "__main__":
    main()
