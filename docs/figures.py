"""Draw the figures of the documents, after `make demo`: `python -m docs.figures`.

`docs/images/reference.png` comes from `docs/beside_reference.json`, `docs/images/views.png` from the arrays
of the demo.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch

from engine.visualisation import COLOURS, describe_view
from feeder.augmentations import NUM_BLOCKS, PretrainingViews, centre_crop
from feeder.dataset import SkeletonDataset
from feeder.skeleton import JOINT_NAMES, LINKS

DOCS = Path(__file__).parent
CHANCE = 13.986  # 4 ln(K + 1), K = 32
CLIP, SEED = "A008", 18056  # arm circles; with this seed the two views have all augmentations
STEP = 0.95  # metres between two frames
plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 130}


def draw_reference() -> None:
    """Draw loss and 1-NN accuracy over the epochs: the reference and this code, one line for each seed."""
    runs = json.loads((DOCS / "beside_reference.json").read_text())["runs"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for run in runs:
        reference = run["code"] == "reference"
        style = dict(color="black", lw=1.8, zorder=3) if reference else dict(color=f"C{run['seed']}", lw=1.2)
        label = ("authors' code" if reference else "this code") + f", seed {run['seed']}"
        left.plot(range(1, len(run["loss"]) + 1), run["loss"], label=label, **style)
        right.plot(
            [int(epoch) for epoch in run["acc1"]],
            run["acc1"].values(),
            marker="o",
            ms=3,
            label=label,
            **style,
        )
    left.axhline(CHANCE, color="grey", lw=0.8, ls=":")
    left.text(80, CHANCE + 0.06, "chance, 4 ln 33", color="grey", ha="right")
    left.set(xlabel="epoch", ylabel="contrastive loss, mean of the epoch")
    right.set(xlabel="epochs of pre-training", ylabel="1-NN accuracy, %", ylim=(60, 100))
    left.legend(frameon=False, loc="lower left")
    figure.savefig(DOCS / "images" / "reference.png")


def draw_views(folder: str = "demo/data/demo/xsub") -> None:
    """Draw one clip of the demo and two augmented views of it, a frame of each block of the temporal mask."""
    dataset = SkeletonDataset(folder, "train")
    index = next(i for i, name in enumerate(dataset.names) if CLIP in name)
    batch, views, generator = (
        dataset[[index]],
        PretrainingViews(bodies=1),
        torch.Generator().manual_seed(SEED),
    )
    drawn = [views.draw(batch.num_frames, generator) for _ in range(2)]
    clips = [centre_crop(batch.x[..., :1], batch.num_frames, ratio=1)]
    clips += [
        views.apply(batch.x, p._replace(joints=torch.zeros_like(p.joints))) for p in drawn
    ]  # masked joints in grey
    masks = [torch.zeros_like(drawn[0].joints[0]), *(p.joints[0] for p in drawn)]
    texts = [f"clip\n{batch.num_frames[0]} frames"]
    texts += [f"view {name}\n{describe_view(p, 0)}" for name, p in zip("qk", drawn, strict=True)]
    figure, axes = plt.subplots(3, 1, figsize=(9, 4), layout="constrained")
    for axis, x, masked, text in zip(axes, clips, masks, texts, strict=True):
        points = x[0, [0, 2], :: x.shape[2] // NUM_BLOCKS, :, 0]  # (2, blocks, V): x to the right, z upwards
        for block, frame in enumerate(points.unbind(dim=1)):
            if not frame.any():
                axis.text(STEP * block, -0.1, "masked", color="grey", size=7, ha="center", va="center")
                continue
            for link in map(list, LINKS):
                colour = COLOURS.get(JOINT_NAMES[link[0]].split()[0], (110, 110, 110))
                colour = [0.88] * 3 if masked[link].any() else [c / 255 for c in colour]
                axis.plot(
                    STEP * block + frame[0, link],
                    frame[1, link],
                    color=colour,
                    lw=1.6,
                    solid_capstyle="round",
                )
        axis.text(-0.7, -0.1, text, ha="right", va="center", size=8)
        axis.set(aspect="equal", xlim=(-3.2, STEP * NUM_BLOCKS + 0.1), ylim=(-1.3, 0.75))
        axis.axis("off")
    figure.savefig(DOCS / "images" / "views.png")


if __name__ == "__main__":
    draw_reference()
    draw_views()
