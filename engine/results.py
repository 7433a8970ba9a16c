"""`python -m engine.results log`: one Markdown table of every evaluation in a log folder, next to the published figures.

The rows come from the result.json that each finished evaluation writes to its folder, and from results.jsonl in the log
folder itself, which has rows of several runs, one per line; if there are none, from results.jsonl in subfolders. `--mean`
averages runs that differ only in the seed, `--by-encoder` makes one column of Acc@1 for each kind of encoder, and `--write
README.md` puts the table between two marker lines.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.files import write_text
from feeder.cli import CommandLine, UserError, script

RESULT = "result.json"
# Entries of a row and their types. `labels` is the fraction used; runs with the same `group` differ only in the seed;
# `comparable` runs are shown next to the published figure; _std: standard deviation over repeats; accuracies in percent.
FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("task", "data_set", "protocol", "stream", "encoder", "group"), (str,)),
    **dict.fromkeys(("labels", "acc1"), (float,)),
    **dict.fromkeys(
        ("acc1_std", "best_acc1", "best_acc1_std", "mean_average_precision"), (float, type(None))
    ),
    "seed": (int,),
    "comparable": (bool,),
}
# Top-1 in percent in SCD-Net's paper, joint stream; the linear figure is that of the best test epoch.
PUBLISHED = {
    ("ntu60", "cross_subject"): {"linear": 86.6, "1-NN retrieval": 76.2},
    ("ntu60", "cross_view"): {"linear": 91.7, "1-NN retrieval": 86.8},
    ("ntu120", "cross_subject"): {"linear": 76.9, "1-NN retrieval": 59.8},
    ("ntu120", "cross_setup"): {"linear": 80.1, "1-NN retrieval": 65.7},
    ("pku_part1", "cross_subject"): {"linear": 91.9},
    ("pku_part2", "cross_subject"): {"linear": 54.0},
}
ABOUT = ("task", "data set", "protocol", "stream", "labels")  # identifies a line of --by-encoder
OPTIONAL = ("labels", "best on test", "mAP", "published", "run")  # columns that are omitted if they are empty
MARKERS = ("<!-- results -->", "<!-- /results -->")


def read_rows(path: Path) -> list[dict]:
    """Return the checked rows of a result file; raise UserError if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        )
        for row in rows:
            for name, types in FIELDS.items():
                value = row.get(name)
                broken = (
                    isinstance(value, float)
                    and not abs(value) < 1e6
                    or isinstance(value, str)
                    and not value.isprintable()
                )
                if type(value) not in types or broken:
                    raise ValueError(f"wrong or missing {name!r}")
        return [row | {"run": path.parent.name} for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def write_rows(folder: Path, rows: Sequence[dict]) -> None:
    """Write the rows of a finished evaluation to result.json atomically."""
    write_text(folder / RESULT, json.dumps(rows, indent=1) + "\n")


def table(log_dir: Path, mean: bool = False, by_encoder: bool = False) -> str:
    """Return the Markdown table of all finished evaluations below `log_dir`, sorted; print damaged files to stderr.

    Args:
        log_dir: folder of runs.
        mean: one line for all runs that differ only in the seed, with mean and standard deviation (n - 1).
        by_encoder: one column of Acc@1 for each kind of encoder.
    """
    groups: dict[object, dict[int, dict]] = {}  # rows by group and seed; the last row of a seed
    found = [*log_dir.rglob(RESULT), *log_dir.glob("results.jsonl")]
    for path in sorted(found or log_dir.rglob("results.jsonl")):
        try:
            rows = read_rows(path)
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        for i, row in enumerate(rows):
            groups.setdefault(row["group"] if mean else (path, i), {})[row["seed"]] = row
    if not groups:
        what = f"no {RESULT} of a finished evaluation in it" if log_dir.is_dir() else "no such folder"
        raise UserError(f"{log_dir}: {what}; set the --log-dir of the runs")
    lines = [cells([group[seed] for seed in sorted(group)]) for group in groups.values()]
    lines.sort(key=lambda line: list(line.values()))
    if mean:
        lines = [line | {"run": ""} for line in lines]
    if by_encoder:
        lines = side_by_side(lines)
    columns = [name for name in lines[0] if name not in OPTIONAL or any(line[name] for line in lines)]
    texts = [columns, ["---"] * len(columns), *([line[name] for name in columns] for line in lines)]
    return "\n".join(f"| {' | '.join(text)} |" for text in texts)


def cells(group: Sequence[dict]) -> dict[str, str]:
    """Return the cells of rows that are one line of the table, by column."""
    row = group[0]
    published = (
        PUBLISHED.get((row["data_set"], row["protocol"]), {}).get(row["task"]) if row["comparable"] else None
    )
    line = {
        name.replace("_", " "): row[name] for name in ("task", "data_set", "protocol", "stream", "encoder")
    }
    return line | {
        "labels": "" if row["labels"] == 1 else f"{100 * row['labels']:g} %",
        "seed": ", ".join(str(row["seed"]) for row in group),
        "Acc@1": mean_of(group, "acc1"),
        "best on test": mean_of(group, "best_acc1"),
        "mAP": mean_of(group, "mean_average_precision"),
        "published": "" if published is None else f"{published:.1f}",
        "run": row["run"],
    }


def mean_of(group: Sequence[dict], name: str, digits: int = 1) -> str:
    """Return "80.0" for one value, "80.0 \N{PLUS-MINUS SIGN} 1.2" for several or for one with its own standard deviation."""
    values = [row[name] for row in group if row.get(name) is not None]
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else group[0].get(f"{name}_std")
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if deviation is None else f"{text} \N{PLUS-MINUS SIGN} {deviation:.{digits}f}"


def side_by_side(lines: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return lines with one column of Acc@1 for each kind of encoder."""
    encoders = sorted(
        {line["encoder"] for line in lines}, key=lambda name: (name.startswith("pre-trained"), name)
    )
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        about = tuple(line[name] for name in ABOUT)
        row = found.setdefault(about, dict(zip(ABOUT, about, strict=True)) | dict.fromkeys(encoders, ""))
        row[line["encoder"]] += f"; {line['Acc@1']}" if row[line["encoder"]] else line["Acc@1"]
    return [row for _, row in sorted(found.items())]


def write_between_markers(path: Path, text: str) -> None:
    """Replace the text between the two lines of `MARKERS` in a file atomically; raise UserError unless there is one pair."""
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    start, end = ([i for i, line in enumerate(lines) if line.strip() == marker] for marker in MARKERS)
    if len(start) != 1 or len(end) != 1 or start > end:
        raise UserError(
            f"{path}: the table goes between two lines, {MARKERS[0]} and {MARKERS[1]}; add them once"
        )
    write_text(path, "\n".join([*lines[: start[0] + 1], text, *lines[end[0] :]]))


def get_parser() -> CommandLine:
    """Return the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = CommandLine(prog="python -m engine.results", description=__doc__, formatter_class=form)
    parser.add_argument(
        "log_dir", nargs="?", type=Path, default=Path("log"), help="folder of runs (%(default)s)"
    )
    parser.add_argument(
        "--mean",
        action="store_true",
        help="one line for runs that differ only in the seed, with mean and std",
    )
    parser.add_argument(
        "--by-encoder", action="store_true", help="one column of Acc@1 for each kind of encoder"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"write the table between {MARKERS[0]} and {MARKERS[1]}"
    )
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print or write the table."""
    args = get_parser().parse_args(argv)
    text = table(args.log_dir, args.mean, args.by_encoder)
    if args.write:
        write_between_markers(args.write, text)
    print(f"written to {args.write}" if args.write else text)


if __name__ == "__main__":
    main()
