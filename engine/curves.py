"""`python -m engine.curves log/RUN -o curves.svg`: loss and accuracy against the epoch, as an SVG picture.

Several runs are drawn into the same axes, each in its colour. The figures are those of metrics.jsonl.
"""

import argparse
import json
import math
from html import escape
from pathlib import Path

from engine.files import write_text
from feeder.cli import CommandLine, UserError, script

PANELS = {"loss": "loss", "acc1": "Acc@1 (%)"}
COLOURS = ("#1f77b4", "#d65c14", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf")
WIDTH, HEIGHT = 340, 210  # of the axes
LEFT, TOP, RIGHT, FOOT, LEGEND = 62, 34, 24, 58, 18
INK, GRID = "#333333", "#e4e4e4"


def read_curves(folder: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return for each training of a run the finite points (epoch counted from 1, value) of each figure in `PANELS`.

    A run of several streams or repeats has a training of each; its name is the folder's and, behind it, such as bone/repeat0.

    Raises:
        UserError: the folder has no figures of epochs.
    """
    path = folder / "metrics.jsonl"
    trainings: dict[str, dict[str, list[tuple[float, float]]]] = {}
    try:
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            for key in line if "epoch" in line else ():
                training, _, figure = key.rpartition("/")
                if figure in PANELS and math.isfinite(line[key]):
                    curves = trainings.setdefault(f"{folder.resolve().name} {training}".strip(), {name: [] for name in PANELS})
                    curves[figure].append((line["epoch"] + 1, line[key]))
    except FileNotFoundError:
        raise UserError(f"no run in {folder}: it has no metrics.jsonl") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or not ours: {' '.join(str(error).split())}") from None
    if not trainings:
        raise UserError(f"{path} has no loss or accuracy of epochs")
    return trainings


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers, at most `most`, evenly spaced over low .. high: multiples of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while True:
        for factor in (1, 2, 5):
            first, last = math.ceil(low / (factor * step) - 1e-9), math.floor(high / (factor * step) + 1e-9)
            if last - first < most:
                return [i * factor * step for i in range(first, last + 1)]
        step *= 10


def draw_curves(runs: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Return the SVG of curves, a panel for each figure that any run has.

    Args:
        runs: for each name the points of its figures, as `read_curves` gives them.
    """
    panels = [name for name in PANELS if any(curves[name] for curves in runs.values())]
    width = len(panels) * (LEFT + WIDTH + RIGHT)
    height = TOP + HEIGHT + FOOT + LEGEND * len(runs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, name in enumerate(panels):
        parts.append(f'<g transform="translate({i * (LEFT + WIDTH + RIGHT) + LEFT} {TOP})">')
        parts += [*_panel(PANELS[name], [curves[name] for curves in runs.values()]), "</g>"]
    for i, run in enumerate(runs):
        y = TOP + HEIGHT + FOOT + LEGEND * i
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + 22}" y2="{y}" stroke="{_colour(i)}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{y + 4}">{escape(run)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(title: str, curves: list[list[tuple[float, float]]]) -> list[str]:
    """Return grid, ticks, labels and lines of one panel; the upper left corner of its axes is (0, 0)."""
    xs, ys = zip(*(point for curve in curves for point in curve), strict=True)
    x_range, y_range = _span(min(xs), max(xs)), _span(*_padded(min(ys), max(ys)))
    x_ticks = [x for x in ticks(*x_range) if x == int(x)]  # there is no half an epoch
    y_ticks = ticks(*y_range)
    across = lambda x: round((x - x_range[0]) / (x_range[1] - x_range[0]) * WIDTH, 2)  # noqa: E731
    down = lambda y: round(HEIGHT - (y - y_range[0]) / (y_range[1] - y_range[0]) * HEIGHT, 2)  # noqa: E731
    parts = [f'<text x="{WIDTH / 2}" y="-12" text-anchor="middle" font-size="13">{escape(title)}</text>']
    for x in x_ticks:
        parts.append(f'<path d="M{across(x)} 0V{HEIGHT}" stroke="{GRID}"/>')
        parts.append(f'<text x="{across(x)}" y="{HEIGHT + 17}" text-anchor="middle">{x:g}</text>')
    for y in y_ticks:
        parts.append(f'<path d="M0 {down(y)}H{WIDTH}" stroke="{GRID}"/>')
        parts.append(f'<text x="-7" y="{down(y) + 4}" text-anchor="end">{y:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">epoch</text>')
    parts.append(f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="{INK}"/>')
    for i, curve in enumerate(curves):
        if curve:
            points = " ".join(f"{across(x)},{down(y)}" for x, y in curve)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{_colour(i)}" stroke-width="1.6" '
                         'stroke-linejoin="round" stroke-linecap="round"/>')  # fmt: skip
    return parts


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low)
    return (0 if 0 <= low <= margin else low - margin), high + margin


def _span(low: float, high: float) -> tuple[float, float]:
    """Return a range with a length, also where all values are the same."""
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high), 1e-9) else (low - 0.5, high + 0.5)


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def get_parser() -> CommandLine:
    """Return the command line."""
    parser = CommandLine(
        prog="python -m engine.curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.svg"), metavar="FILE", help="(%(default)s)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Draw the curves."""
    args = get_parser().parse_args(argv)
    picture = draw_curves({name: curves for folder in args.runs for name, curves in read_curves(folder).items()})
    write_text(args.output, picture)
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
