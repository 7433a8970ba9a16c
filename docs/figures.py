"""Draw the figures of the documents into `docs/images/`.

    python -m docs.figures [method | reference]

By default both are drawn, `reference` from `docs/beside_reference.json`. Requirements: those of the project
and `docs/requirements.txt`.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from torch import Tensor

from feeder.augmentations import PretrainingViews, centre_crop
from feeder.cli import CommandLine
from feeder.skeleton import LINKS, NUM_JOINTS, SPINE_MID
from feeder.synthetic import draw_motion, make_body, pose
from model.contrast import PAIRS

DOCS = Path(__file__).parent
CHANCE = 13.986  # 4 ln(K + 1), K = 32
SEED = 36921  # of the two views in the method's figure
plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 130}

# the method's figure, in pixels; t temporal, s spatial, i the anchor
COLOUR = {"t": "#2f6f9f", "s": "#c07a1e", "i": "#7a4b8c"}
GREY = "#8a8f98"
BRANCHES = dict(t="temporal branch,\ntokens: frames", s="spatial branch,\ntokens: joints")
ROWS = {"q": dict(t=593, i=523, s=453), "k": dict(s=233, i=163, t=93)}  # height of each domain, of each view
COLUMNS = dict(s=1128, i=1306, t=1484)  # of z and k; in this order the loss crosses no other arrow
CENTRE = dict(ha="center", va="center")


def draw_reference() -> None:
    """Draw loss and 1-NN accuracy over the epochs: the reference and this code, one line for each seed."""
    runs = json.loads((DOCS / "beside_reference.json").read_text())["runs"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for run in runs:
        reference = run["code"] == "reference"
        style = dict(color="black" if reference else "C0", lw=1.2, ls=("-", "--", ":")[run["seed"]])
        label = ("authors' code" if reference else "this code") + f", seed {run['seed']}"
        left.plot(range(1, len(run["loss"]) + 1), run["loss"], label=label, **style)
        epochs = [int(epoch) for epoch in run["acc1"]]
        right.plot(epochs, run["acc1"].values(), marker="o", ms=3, label=label, **style)
    left.axhline(CHANCE, color="grey", lw=0.8, ls=":")
    left.text(80, CHANCE + 0.06, "chance, 4 ln 33", color="grey", ha="right")
    left.set(xlabel="epoch", ylabel="contrastive loss, mean of the epoch")
    right.set(xlabel="epochs of pre-training", ylabel="1-NN accuracy, %", ylim=(60, 100))
    right.legend(frameon=False, loc="lower center", ncols=2)
    figure.savefig(DOCS / "images" / "reference.png")


def draw_method() -> None:
    """Draw the method: a clip, its two views, both encoders with their decoders, the queues, the loss."""
    figure = plt.figure(figsize=(16, 6.5))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 1600), ylim=(0, 650))
    axis.axis("off")
    _clips(axis)
    for view in "qk":
        _network(axis, view)
    _arrow(axis, (715, 407), (715, 280), lw=2)
    axis.text(730, 343, "momentum m,\nno gradient", size=15, va="center")
    axis.text(1540, 152, "queues of\nK keys", size=14.5, **CENTRE)
    _loss(axis)
    path = DOCS / "images" / "method.png"
    figure.savefig(path, dpi=100)
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)  # a third of the bytes


def _clips(axis: Axes) -> None:
    """Draw a synthetic clip and two augmented views of it."""
    clip = pose(make_body(1), draw_motion(np.random.default_rng(7), action=0))  # (T, V, 3), y upwards
    clip = (clip - clip[:, [SPINE_MID]])[..., [0, 2, 1]].transpose(2, 0, 1)  # as prepared: z upwards
    x, num_frames = torch.from_numpy(clip).float()[None, ..., None], torch.tensor([clip.shape[1]])
    views, generator = PretrainingViews(bodies=1), torch.Generator().manual_seed(SEED)
    _strip(axis, (44, 360), "clip", centre_crop(x, num_frames, ratio=1), torch.zeros(NUM_JOINTS))
    axis.text(402, 343, "at random: crop, rotation, flip,\nshear, joint mask, frame mask", size=15, **CENTRE)
    for view, sign in dict(q=1, k=-1).items():
        y, p = ROWS[view]["i"], views.draw(num_frames, generator)
        shown = views.apply(x, p._replace(joints=p.joints & False))  # masked joints are in grey
        _strip(axis, (326, y), f"view {view}", shown, p.joints[0])
        _arrow(axis, (228, 360 + 50 * sign), (270, y - 40 * sign))


def _strip(axis: Axes, place: tuple[float, float], text: str, x: Tensor, masked: Tensor) -> None:
    """Draw three frames of a clip x (1, 3, 64, V, 1) from `place` to the right, and a text above."""
    left, y = place
    axis.text(left + 76, y + 88, text, size=16, **CENTRE)
    for number, frame in enumerate(x[0, [0, 2], 10:48:16, :, 0].unbind(dim=1)):
        centre = left + 76 * number
        if frame.any():
            _body(axis, 70 * frame + torch.tensor([[centre], [y + 18]]), masked)
        else:
            _box(axis, (centre, y), (40, 118), "", GREY, linestyle="--")


def _network(axis: Axes, view: str) -> None:
    """Draw the query or the key encoder with its decoders and embeddings; the keys enter their queues."""
    rows, name, letter = ROWS[view], *dict(q=("query encoder", "z"), k=("key encoder", "k"))[view]
    middle = rows["i"]
    _box(axis, (820, middle), (440, 222), "", "#d5d8dd", facecolor="#f4f5f7")
    axis.text(715, middle, name, size=17, **CENTRE)
    for domain, branch in BRANCHES.items():
        y, colour = rows[domain], COLOUR[domain]
        _arrow(axis, (544, middle), (612, y))
        _box(axis, (715, y), (200, 58), branch, colour)
        _arrow(axis, (816, y), (846, y))
        axis.text(866, y, f"$v_{domain}$", size=20, color=colour, **CENTRE)
        _arrow(axis, (886, y), (926, y))
        _arrow(axis, (878, 0.75 * y + 0.25 * middle), (926, 0.1 * y + 0.9 * middle))
    for domain, y in rows.items():
        x, colour = COLUMNS[domain], COLOUR[domain]
        _box(axis, (976, y), (96, 44), "decoder", colour)
        _arrow(axis, (1026, y), (x - 30, y))
        fill = colour if view == "q" else "white"
        _box(axis, (x, y), (52, 46), f"${letter}_{domain}$", colour, facecolor=fill)
        if view == "k":
            _arrow(axis, (x + 28, y), (x + 48, y))
            for place in range(6):  # its queue
                _box(axis, (x + 55 + 9 * place, y), (7, 44), "", colour)


def _loss(axis: Axes) -> None:
    """Draw the terms of the loss as arrows from z to k, in the colour of z, and their sum."""
    shift = dict(s=-9, i=0, t=9)  # two terms begin or end at the anchor
    axis.text(75, 22, "L =", size=18, ha="right", va="center")
    for number, (z, k) in enumerate(PAIRS):
        start, end = COLUMNS[z] + shift[k], COLUMNS[k] + shift[z]
        _arrow(axis, (start, ROWS["q"][z] - 27), (end, ROWS["k"][k] + 29), COLOUR[z], lw=2.4)
        axis.text(85 + 164 * number, 22, f"nce($z_{z}, k_{k}$)", size=18, va="center", color=COLOUR[z])
        if number:
            axis.text(62 + 164 * number, 22, "+", size=18, **CENTRE)
    text = "nce(z, k): pick k among itself and its queue, by cosine similarity with z"
    axis.text(1575, 22, text, size=14.5, ha="right", va="center")


def _body(axis: Axes, points: Tensor, masked: Tensor) -> None:
    """Draw a skeleton, points (2, V), with pale bones at masked joints, (V,)."""
    for link in map(list, LINKS):
        colour = "0.88" if masked[link].any() else "0.43"
        axis.plot(*points[:, link], color=colour, lw=1.6, solid_capstyle="round")


def _box(axis: Axes, place: tuple, size: tuple, text: str, colour: str, **style: Any) -> None:
    """Draw a rounded box of `size` around `place`, with a text in the middle."""
    (x, y), (width, height) = place, size
    style = dict(facecolor="white", edgecolor=colour, linewidth=1.6) | style
    shape = f"round,pad=0,rounding_size={min(9, width / 4)}"
    axis.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, shape, **style))
    colour = "white" if style["facecolor"] == colour else colour
    axis.text(x, y, text, size=20 if "$" in text else 14.5, color=colour, **CENTRE)


def _arrow(axis: Axes, start: tuple, end: tuple, colour: str = GREY, lw: float = 1.4) -> None:
    style = dict(arrowstyle="-|>", color=colour, lw=lw, shrinkA=0, shrinkB=0, mutation_scale=12 + 3 * lw)
    axis.annotate("", end, start, arrowprops=style)


FIGURES = {"method": draw_method, "reference": draw_reference}

if __name__ == "__main__":
    parser = CommandLine("docs.figures", "Draw the figures of the documents.")
    parser.add_argument("figure", nargs="?", choices=FIGURES, help="default both")
    chosen = parser.parse_args().figure
    for name in [chosen] if chosen else FIGURES:
        FIGURES[name]()
