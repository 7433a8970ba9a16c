"""Print a Markdown table of all evaluations in a log folder, with the published figures.

    python -m engine.results log --mean

This reads the result.json that each finished evaluation writes to its folder, and results.jsonl in the log
folder, which has one row per line; if there are none, it reads every results.jsonl in subfolders. `--mean`
averages the runs that differ only in their seed.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feeder.cli import CommandLine, UserError, script

RESULT = "result.json"
# Columns that identify an experiment. `labels` is the fraction used; `setup` says what was trained and
# how, as flags that differ from the paper's recipe; `comparable` rows are shown next to the published figure.
EXPERIMENT = ("task", "data_set", "protocol", "stream", "encoder", "labels", "setup", "comparable")
# Accuracies in percent of the last epoch and of the epoch that is best on the test set; _std: over repeats.
FIGURES = ("acc1", "acc1_std", "best_acc1", "best_acc1_std", "mean_average_precision")
# Top-1 in percent in SCD-Net's paper, joint stream; the linear figure is that of the best test epoch.
PUBLISHED = {
    ("ntu60", "cross_subject"): {"linear": 86.6, "1-NN retrieval": 76.2},
    ("ntu60", "cross_view"): {"linear": 91.7, "1-NN retrieval": 86.8},
    ("ntu120", "cross_subject"): {"linear": 76.9, "1-NN retrieval": 59.8},
    ("ntu120", "cross_setup"): {"linear": 80.1, "1-NN retrieval": 65.7},
    ("pku_part1", "cross_subject"): {"linear": 91.9},
    ("pku_part2", "cross_subject"): {"linear": 54.0},
}
OPTIONAL = ("labels", "setup", "best on test", "mAP", "published", "run")  # omitted if no row has them


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of a finished evaluation, with `EXPERIMENT`, "seed" and `FIGURES`, to result.json."""
    (folder / RESULT).write_text(json.dumps(rows, indent=1) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a result file, with its folder as "run"; if damaged, say so and return none."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text if path.suffix == ".json" else f"[{','.join(text.splitlines())}]")
        required = [{name: row[name] for name in (*EXPERIMENT, "seed", "acc1")} for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        print(f"skipped: {path} is damaged or from an earlier version", file=sys.stderr)
        return []
    figures = [{name: row.get(name) for name in (*FIGURES, "weights")} for row in rows]
    return [a | b | {"run": path.parent.name} for a, b in zip(required, figures, strict=True)]


def find_rows(log_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of all finished evaluations below a folder; raise `UserError` if there are none."""
    found = [*log_dir.rglob(RESULT), *log_dir.glob("results.jsonl")] or log_dir.rglob("results.jsonl")
    rows = [row for path in sorted(found, key=lambda path: path.stat().st_mtime) for row in read_rows(path)]
    if not rows:
        what = f"no {RESULT} of a finished evaluation in it" if log_dir.is_dir() else "no such folder"
        raise UserError(f"{log_dir}: {what}; set the --log-dir of the runs")
    return rows


def table(log_dir: Path, mean: bool = False) -> str:
    """Return the Markdown table of all finished evaluations below a folder, and a list of their setups.

    With `mean`, rows that differ only in the seed share a line, with mean and standard deviation (n - 1);
    only the last row with the same seed and encoders counts.
    """
    groups: dict[tuple, dict[tuple, dict[str, Any]]] = {}  # the rows of each line, by seed and weights
    for i, row in enumerate(find_rows(log_dir)):
        key = tuple(row[name] for name in EXPERIMENT) + (() if mean else (row["seed"], i))
        groups.setdefault(key, {})[row["seed"], row["weights"] or ""] = row | ({"run": ""} if mean else {})
    lines = [cells([group[seed] for seed in sorted(group)]) for _, group in sorted(groups.items())]

    # number the setups, which may be long
    setups = list(dict.fromkeys(line["setup"] for line in lines))
    numbers = {setup: f"[{i}]" if len(setups) > 1 else "" for i, setup in enumerate(setups, start=1)}
    legend = [
        f"- setup{number and ' ' + number}: {setup or 'as in the paper'}" for setup, number in numbers.items()
    ]
    lines = [line | {"setup": numbers[line["setup"]]} for line in lines]

    columns = [name for name in lines[0] if name not in OPTIONAL or any(line[name] for line in lines)]
    texts = [columns, ["---"] * len(columns), *([line[name] for name in columns] for line in lines)]
    return "\n".join([*(f"| {' | '.join(text)} |" for text in texts), "", *legend])


def cells(group: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the cells of rows that form one line of the table, by column."""
    row = group[0]
    published = PUBLISHED.get((row["data_set"], row["protocol"]), {}) if row["comparable"] else {}
    about = ("task", "data_set", "protocol", "stream", "encoder")
    return {name.replace("_", " "): row[name] for name in about} | {
        "labels": "" if row["labels"] == 1 else f"{100 * row['labels']:g} %",
        "setup": row["setup"],
        "seed": ", ".join(str(row["seed"]) for row in group),
        "Acc@1": mean_of(group, "acc1"),
        "best on test": mean_of(group, "best_acc1"),
        "mAP": mean_of(group, "mean_average_precision"),
        "published": str(published.get(row["task"], "")),
        "run": row["run"],
    }


def mean_of(group: Sequence[dict[str, Any]], name: str, digits: int = 1) -> str:
    """Return "80.0" for one value, "80.0 ± 1.2" for several or for one with its own standard deviation."""
    values = [row[name] for row in group if row.get(name) is not None]
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else group[0].get(f"{name}_std")
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def get_parser() -> CommandLine:
    """Return the argument parser."""
    parser = CommandLine("engine.results", __doc__)
    add = parser.add_argument
    add("log_dir", nargs="?", type=Path, default=Path("log"), help="folder of runs (%(default)s)")
    mean = "one line for runs that differ only in the seed, mean ± deviation"
    add("--mean", action="store_true", help=mean)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    args = get_parser().parse_args(argv)
    print(table(args.log_dir, args.mean))


if __name__ == "__main__":
    main()
