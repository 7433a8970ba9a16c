"""Raw NTU RGB+D skeletons -> arrays. The same command again starts over and replaces them.

    python ntu_gendata.py                      # NTU-60  -> data/NTU-RGB-D-60-AGCN/{xsub,xview}
    python ntu_gendata.py --dataset ntu120     # NTU-120 -> data/NTU-RGB-D-120-AGCN/{xsub,xsetup}

Deliberate differences from the reference's data_gen/ntu_gendata.py: samples stand in the order of
their names, not in that of the file system; a file without any body is left out and named, where
the reference keeps a sample of zeros; a damaged file is an error with its line. What is computed
from a whole file is the same.
"""

from collections.abc import Iterator
from pathlib import Path

from feeder.cli import UserError, script
from feeder.preparation import ntu
from feeder.preparation.generate import Clip, Report, Sample, Source, default_workers, generate
from feeder.preparation.normalize import to_sample
from feeder.preparation.summary import HEADING, count_verdict, summary_line
from options.parser import Parser, positive_int

DEFAULTS = {
    "ntu60": ("data/nturgbd_raw/nturgb+d_skeletons", "data/NTU-RGB-D-60-AGCN"),
    "ntu120": ("data/nturgbd_raw_120/nturgb+d_skeletons", "data/NTU-RGB-D-120-AGCN"),
}


def get_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument_group("raw files").add_argument
    add("--dataset", choices=ntu.BENCHMARKS, default="ntu60", metavar="NAME", help="ntu60 or ntu120 (%(default)s)")
    add("--data-path", type=Path, nargs="+", metavar="DIR",
        help="one or several with .skeleton files (data/nturgbd_raw[_120]/nturgb+d_skeletons)")  # fmt: skip
    add("--ignored-sample-path", type=Path, metavar="FILE",
        help="names of samples to skip, one a line, besides the built-in list of missing skeletons")  # fmt: skip
    add("--skip-bad", action="store_true", help="leave damaged files out instead of failing at the end")
    add = parser.add_argument_group("arrays").add_argument
    add("--out-folder", type=Path, metavar="DIR", help="(data/NTU-RGB-D-60-AGCN or data/NTU-RGB-D-120-AGCN)")
    add("--benchmark", nargs="+", choices=("xsub", "xview", "xsetup"), metavar="NAME",
        help="of xsub, xview, xsetup (xsub and xview of ntu60, xsub and xsetup of ntu120)")  # fmt: skip
    add("--workers", type=positive_int, default=default_workers(), metavar="N", help="processes (all cores, 12 at most)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the data set of a command line."""
    parser = get_parser()
    args = parser.parse_args(argv)
    allowed = ntu.BENCHMARKS[args.dataset]
    benchmarks = [name for name in allowed if name in (args.benchmark or allowed)]
    if set(args.benchmark or ()) - set(allowed):
        parser.error(f"argument --benchmark: {args.dataset} has {' and '.join(allowed)}")
    folders = args.data_path or [Path(DEFAULTS[args.dataset][0])]
    out_folder = args.out_folder or Path(DEFAULTS[args.dataset][1])

    # what to read
    missing = ntu.missing_samples(args.dataset)
    ignored = ntu.read_names(args.ignored_sample_path) if args.ignored_sample_path else set()
    files = [path for folder in folders for path in ntu.list_files(folder)]
    wanted = [path for path in files if path.stem not in missing and path.stem not in ignored]
    sources, bad = plan(wanted, args.dataset, benchmarks)

    # read, normalise, write
    report = generate(sources, read, out_folder, benchmarks, args.workers, args.skip_bad, bad)

    # what came out
    listed = sum(path.stem in missing for path in files)
    print(f"{len(files):,} files; skipped: {listed} listed as missing skeletons, {len(files) - len(wanted) - listed} listed "
          f"by --ignored-sample-path, {len(report.empty)} without any body, {len(report.bad)} damaged")  # fmt: skip
    print_report(report, args.dataset, benchmarks)
    print(f"written to {out_folder}")


def plan(paths: list[Path], dataset: str, benchmarks: list[str]) -> tuple[list[Source], list[str]]:
    """Return a source for each file that can be a sample of the data set, and a line for each one that cannot."""
    sources: dict[str, Source] = {}
    bad = []
    for path in paths:
        try:
            name = ntu.check_range(path.name, dataset)
        except UserError as error:
            bad.append(f"{path.parent}/{error}")
            continue
        if path.name in sources:
            bad.append(f"{path}: the sample is also in {sources[path.name].path.parent}; keep one")
            continue
        parts = {benchmark: ntu.part_of(name, benchmark) for benchmark in benchmarks}
        sources[path.name] = Source(path, (Sample(path.name, name.action - 1, parts),))
    return list(sources.values()), bad


def read(source: Source) -> Iterator[Clip | None]:
    """Yield the one clip of a file, None if nobody is in it."""
    bodies = ntu.read_bodies(source.path)
    sample = to_sample(bodies)
    yield Clip(sample, bodies.shape[1]) if sample[:, 0].any() else None


def print_report(report: Report, dataset: str, benchmarks: list[str]) -> None:
    """Print what was left out by name, and the table of what was written."""
    for line in report.bad:
        print(f"damaged: {line}")
    for name in report.empty:
        print(f"without any body: {name}")
    print(HEADING)
    for made in report.made:
        print(summary_line(f"{made.benchmark} {made.part}", made.labels, made.num_frame))
    for benchmark in benchmarks:
        train, val = (len(made.labels) for made in report.made if made.benchmark == benchmark)
        print(f"{benchmark}: {count_verdict((train, val), ntu.SAMPLE_COUNTS[dataset, benchmark])}")


if __name__ == "__main__":
    main()
