"""Raw NTU RGB+D skeletons -> arrays. Running the command again replaces them.

    python ntu_gendata.py                      # NTU-60  -> data/NTU-RGB-D-60-AGCN/{xsub,xview}
    python ntu_gendata.py --dataset ntu120     # NTU-120 -> data/NTU-RGB-D-120-AGCN/{xsub,xsetup}

Deliberate differences from the reference's data_gen/ntu_gendata.py: samples are in the order of
their names, not of the file system; a file without any body is skipped, where the reference keeps
a sample of zeros; a damaged file is an error. The computed values are the same.
"""

from pathlib import Path

from feeder.check import print_report
from feeder.cli import script
from feeder.preparation import ntu
from feeder.preparation.generate import default_workers, generate
from options.parser import Parser, positive_int

RAW = {"ntu60": "data/nturgbd_raw/nturgb+d_skeletons", "ntu120": "data/nturgbd_raw_120/nturgb+d_skeletons"}
ARRAYS = {"ntu60": "data/NTU-RGB-D-60-AGCN", "ntu120": "data/NTU-RGB-D-120-AGCN"}


def get_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        choices=ntu.BENCHMARKS,
        default="ntu60",
        metavar="NAME",
        help="ntu60 or ntu120 (%(default)s)",
    )
    folders = "folders of .skeleton files (data/nturgbd_raw[_120]/nturgb+d_skeletons)"
    add("--data-path", type=Path, nargs="+", metavar="DIR", help=folders)
    names = "names of samples to skip, one per line, in addition to the built-in list of missing skeletons"
    add("--ignored-sample-path", type=Path, metavar="FILE", help=names)
    add("--skip-bad", action="store_true", help="skip damaged files instead of failing at the end")
    add(
        "--out-folder",
        type=Path,
        metavar="DIR",
        help="output folder (data/NTU-RGB-D-60-AGCN or data/NTU-RGB-D-120-AGCN)",
    )
    protocols = "protocols to write (ntu60: xsub xview; ntu120: xsub xsetup)"
    add("--benchmark", nargs="+", choices=("xsub", "xview", "xsetup"), metavar="NAME", help=protocols)
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
    """Prepare the data set on the command line."""
    parser = get_parser()
    args = parser.parse_args(argv)
    allowed = ntu.BENCHMARKS[args.dataset]
    benchmarks = [name for name in allowed if name in (args.benchmark or allowed)]
    if set(args.benchmark or ()) - set(allowed):
        parser.error(f"argument --benchmark: {args.dataset} has {' and '.join(allowed)}")
    folders = args.data_path or [Path(RAW[args.dataset])]
    out_folder = args.out_folder or Path(ARRAYS[args.dataset])

    # list the files, read, normalise, write
    missing = ntu.missing_samples(args.dataset)
    ignored = ntu.read_names(args.ignored_sample_path) if args.ignored_sample_path else set()
    files = [path for folder in folders for path in ntu.list_files(folder)]
    wanted = [path for path in files if path.stem not in missing | ignored]
    sources, bad = ntu.list_sources(wanted, args.dataset, benchmarks)
    report = generate(sources, ntu.read_clips, out_folder, benchmarks, args.workers, args.skip_bad, bad)

    # report
    listed = sum(path.stem in missing for path in files)
    skipped = f"{listed} listed as missing skeletons, {len(files) - len(wanted) - listed} listed by --ignored-sample-path"
    print(
        f"{len(files):,} files; skipped: {skipped}, {len(report.empty)} without any body, {len(report.bad)} damaged"
    )
    for kind, lines in (("damaged", report.bad), ("without any body", report.empty)):
        for line in lines:
            print(f"{kind}: {line}")
    print_report(report, {name: ntu.SAMPLE_COUNTS[args.dataset, name] for name in benchmarks}, out_folder)


if __name__ == "__main__":
    main()
