"""Raw files made up for the tests: `.skeleton` files, and downloads of PKU-MMD with their oddities."""

import numpy as np

PKU_NAMES = {
    1: ("0002", "0003", "0004", "0005", "0006"),
    2: ("A01N01", "A01N02", "A01N03", "A02N01", "A02N02"),
}


def skeleton_text(bodies):
    """Return the text of a file; bodies (B, T, 25, 3), a body is absent where it is all zeros in a frame."""
    lines = [str(bodies.shape[1])]
    for frame in range(bodies.shape[1]):
        present = [body[frame] for body in bodies if body[frame].any()]
        lines.append(str(len(present)))
        for place, joints in enumerate(present):
            lines += [f"7205759403793{place:04d} 0 1 1 1 1 0 0.0112 -0.256 2", "25"]
            lines += [
                f"{x:.7g} {y:.7g} {z:.7g} 257.1 -191.9 965.6 479.7 0.1 0.2 0.3 0.4 2" for x, y, z in joints
            ]
    return "\n".join(lines) + "\n"


def random_bodies(rng, frames, bodies=1):
    """Return bodies (B, T, 25, 3) that stand about 3 m away and wander."""
    stand = rng.normal(0, 0.4, (bodies, 1, 25, 3)) + (0, 0, 3)
    return stand + rng.normal(0, 0.02, (bodies, frames, 25, 3)).cumsum(1)


def write_raw(folder, names, seed=0, frames=(2, 9)):
    """Write a small file for each name (no suffix) and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        text = skeleton_text(random_bodies(rng, int(rng.integers(*frames)), int(rng.integers(1, 3))))
        (folder / f"{name}.skeleton").write_text(text)
    return folder


def sample_names(count):
    """Return names of NTU-60 samples in both parts of both protocols, none on the missing lists."""
    names = (
        f"S017C{c:03d}P{p:03d}R001A{a:03d}" for a in range(1, 61) for p in range(1, 41) for c in (1, 2, 3)
    )
    return [next(names) for _ in range(count)]


# of each video: number of frames, label rows (class, start, end, confidence)
PKU_VIDEOS = (
    (370, ((1, 0, 320, 2), (2, 330, 360, 0), (1, 340, 310, 2), (3, 330, 331, 2))),  # long; start > end
    (100, ((3, 50, 60, 1), (1, 10, 30, 2), (2, 80, 100, 2))),  # not in order; the last without any body
    (60, ((2, 5, 25, 2), (3, 30, 70, 2))),  # the last ends after the video
    (30, ((1, 1, 20, 2),)),  # in no list
)


def write_pku(folder, part=1, views="LMR"):
    """Write a download of PKU-MMD as its archives unpack; the split files list a video without files."""
    skeletons, labels, version = ("PKU_Skeleton_Renew", "Train_Label_PKU_final", "")
    if part == 2:
        skeletons, labels, version = "skeleton", "label", "_v2"
    rng = np.random.default_rng(part)
    for name in (f"Data/{skeletons}", f"Label/{labels}", "Split"):
        (folder / name).mkdir(parents=True)
    lists = {"subject": ([], []), "view": ([], [])}
    for video, number in ((video, number) for number, video in enumerate(PKU_NAMES[part])):
        for view in views:
            name = f"{video}-{view}"
            if number < len(PKU_VIDEOS):
                frames, rows = PKU_VIDEOS[number]
                bodies = random_bodies(rng, frames, 2)
                bodies[1, rng.random(frames) < 0.5] = 0
                bodies[:, 80:100] *= number != 1
                # as in the download, each line but the first starts with a blank
                lines = (
                    " ".join(f"{value:.6f}" for value in frame.ravel()) for frame in bodies.swapaxes(0, 1)
                )
                (folder / f"Data/{skeletons}/{name}.txt").write_text("\n ".join(lines) + "\n")
                text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
                (folder / f"Label/{labels}/{name}.txt").write_text(text)
            if number != 3:
                lists["subject"][number == 2].append(name)
                lists["view"][view == "ML"[part - 1]].append(name)
    for kind, (train, val) in lists.items():
        text = f"Training videos: \n{', '.join(train)}, \nValidataion videos: \n{', '.join(val)},"
        (folder / f"Split/cross{'-_'[part - 1]}{kind}{version}.txt").write_text(text)
    return folder
