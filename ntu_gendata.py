"""Raw NTU RGB+D skeletons -> arrays. Running the command again replaces them.

    python ntu_gendata.py                                  # NTU-60  -> data/NTU-RGB-D-60-AGCN/{xsub,xview}
    python ntu_gendata.py --dataset ntu120                 # NTU-120 -> data/NTU-RGB-D-120-AGCN/{xsub,xsetup}
    python ntu_gendata.py --data-path ntu60_3danno.pkl     # from the annotations of pyskl or MMAction2

Deliberate differences from the reference's data_gen/ntu_gendata.py: samples are in the order of their names,
not of the file system; a file without any body is skipped, where the reference keeps a sample of zeros; a
damaged file is an error. The computed values are the same.
"""

import functools
from pathlib import Path

from feeder.cli import script
from feeder.data_sets import DATA_SETS
from feeder.preparation import ntu, pyskl
from feeder.preparation.command import add_flags, prepare
from options.parser import Parser

RAW = {"ntu60": "data/nturgbd_raw/nturgb+d_skeletons", "ntu120": "data/nturgbd_raw_120/nturgb+d_skeletons"}


def get_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    names = "ntu60 or ntu120 (%(default)s)"
    add("--dataset", choices=RAW, default="ntu60", metavar="NAME", help=names)
    raw = "folders of .skeleton files, or a .pkl of annotations (data/nturgbd_raw[_120]/nturgb+d_skeletons)"
    add("--data-path", type=Path, nargs="+", metavar="PATH", help=raw)
    names = "names of samples to skip, one per line, in addition to the built-in list of missing skeletons"
    add("--ignored-sample-path", type=Path, metavar="FILE", help=names)
    protocols = "protocols to write (ntu60: xsub xview; ntu120: xsub xsetup)"
    add("--benchmark", nargs="+", choices=("xsub", "xview", "xsetup"), metavar="NAME", help=protocols)
    add_flags(parser, RAW)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the data set on the command line."""
    parser = get_parser()
    args = parser.parse_args(argv)
    allowed = DATA_SETS[args.dataset].counts
    if set(args.benchmark or ()) - allowed.keys():
        parser.error(f"--benchmark: {args.dataset} has {' and '.join(allowed)}")
    benchmarks = [name for name in allowed if name in (args.benchmark or allowed)]

    # list the files
    paths = args.data_path or [Path(RAW[args.dataset])]
    if len(paths) == 1 and paths[0].suffix == ".pkl":
        annotations = pyskl.read_annotations(paths[0])
        files, read = dict.fromkeys(annotations, paths[0]), functools.partial(pyskl.read_clips, annotations)
        args.workers = 1  # others would need the annotations
    else:
        files, read = ntu.find_files(paths), ntu.read_clips
    missing = ntu.missing_samples(args.dataset) & files.keys()
    ignored = ntu.read_names(args.ignored_sample_path) & files.keys() if args.ignored_sample_path else set()
    wanted = {name: path for name, path in files.items() if name not in missing | ignored}
    print(f"{len(files):,} files; skipped: {len(missing)} listed as missing skeletons", end=", ")
    print(f"{len(ignored - missing)} listed by --ignored-sample-path")

    # read, normalise, write, report
    prepare(args, args.dataset, benchmarks, ntu.list_sources(wanted, args.dataset), read)


if __name__ == "__main__":
    main()
