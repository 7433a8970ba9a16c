"""Write synthetic people as raw files of NTU RGB+D, for demonstrations and tests.

    python -m feeder.synthetic OUT --classes 10 --subjects 12 --repetitions 5 --cameras 1 --seed 0

The same arguments write the same bytes. OUT appears once it is complete. Classes differ in which limbs move,
how, and how fast. All else is drawn for each clip, whatever its class: posture, side, tempo, phase, direction
and distortion of the view, joints that the tracker loses.
"""

import functools
import itertools
import tempfile
from pathlib import Path

import numpy as np

from feeder.cli import CommandLine, UserError, script
from feeder.preparation.ntu import SUFFIX
from feeder.skeleton import JOINT_NAMES, MIRROR, NUM_JOINTS, SPINE_MID

# The middle and the right half of a body of height 1 at rest, from the pelvis outwards: joint -> parent and
# offset from it (right, up, back). The left half is the mirror image.
TREE = {
    "spine base": ("spine base", (0, 0, 0)),
    "spine mid": ("spine base", (0, 0.165, 0.01)),
    "spine": ("spine mid", (0, 0.14, 0.01)),
    "neck": ("spine", (0, 0.045, 0)),
    "head": ("neck", (0, 0.085, -0.02)),
    "right shoulder": ("spine", (0.105, -0.02, 0)),
    "right elbow": ("right shoulder", (0, -0.165, 0)),
    "right wrist": ("right elbow", (0, -0.145, 0)),
    "right hand": ("right wrist", (0, -0.045, 0)),
    "right hand tip": ("right hand", (0, -0.045, 0)),
    "right thumb": ("right hand", (-0.015, -0.02, -0.02)),
    "right hip": ("spine base", (0.05, -0.02, 0)),
    "right knee": ("right hip", (0, -0.24, 0)),
    "right ankle": ("right knee", (0, -0.235, 0)),
    "right foot": ("right ankle", (0, -0.035, -0.065)),
}
# joint -> parent, parents first
PARENTS = {
    half[JOINT_NAMES.index(joint)]: half[JOINT_NAMES.index(parent)]
    for joint, (parent, _) in TREE.items()
    for half in (MIRROR, range(NUM_JOINTS))
}
# rotations about y and z are mirrored on the left side
SIGNS = np.array([(1, -1, -1) if name.startswith("left") else (1, 1, 1) for name in JOINT_NAMES])

FPS = 30
# the tracker: noise of each joint in metres; probability that it mistakes a joint for the middle of the spine
NOISE = [[0.12 if name.endswith(("tip", "thumb", "foot")) else 0.003] for name in JOINT_NAMES]
LOST = [[0 if "spine" in name or "shoulder" in name else 0.25] for name in JOINT_NAMES]
CAMERAS = {2: 0, 3: 45, 1: -45}  # yaw in degrees; the cross-view protocol trains on 2 and 3

# Hz, limbs of a pair that move ("alternate": both, half a cycle apart), swing of each (part, axis): degrees,
# lag in cycles
ACTIONS = {
    "wave": (1.5, "one", {("elbow", "x"): (25, 0), ("shoulder", "z"): (20, 0), ("wrist", "z"): (25, 0.1)}),
    "raise both arms": (0.6, "both", {("shoulder", "z"): (40, 0), ("elbow", "x"): (25, 0)}),
    "clap": (1.5, "both", {("shoulder", "y"): (30, 0), ("elbow", "x"): (12, 0)}),
    "squat": (0.6, "both", {("hip", "x"): (36, 0), ("knee", "x"): (-50, 0), ("ankle", "x"): (14, 0)}),
    "walk": (
        1,
        "alternate",
        {("hip", "x"): (30, 0), ("knee", "x"): (-36, 0.1), ("shoulder", "x"): (25, 0.5)},
    ),
    "box": (1.4, "alternate", {("shoulder", "x"): (30, 0), ("elbow", "x"): (-45, 0)}),
    "jumping jack": (1, "both", {("shoulder", "z"): (45, 0), ("hip", "z"): (28, 0)}),
    "twist": (0.8, "both", {("spine mid", "y"): (32, 0), ("neck", "y"): (-20, 0.1)}),
    "kick": (1, "one", {("hip", "x"): (36, 0), ("knee", "x"): (40, 0.25)}),
    "bow": (0.5, "both", {("spine base", "x"): (-22, 0), ("spine mid", "x"): (-20, 0)}),
}
# middle and half-width of the posture about which a clip swings, degrees about x, y, z
POSTURES = {
    "spine base": ((-5, 0, 0), (4, 0, 2)),
    "spine mid": ((-5, 0, 0), (4, 6, 3)),
    "neck": ((-5, 0, 0), (6, 10, 3)),
    "shoulder": ((40, 20, 35), (28, 18, 21)),
    "elbow": ((60, 0, 0), (32, 14, 0)),
    "wrist": ((0, 0, 0), (10, 0, 7)),
    "hip": ((25, 0, 8), (8, 3, 4)),
    "knee": ((-40, 0, 0), (14, 0, 0)),
    "ankle": ((10, 0, 0), (4, 0, 0)),
}
# one body: its id and state, 25 joints; no projections, no orientation; tracked (2)
BODY = "72057594037931101 0 1 0 1 0 0 0.01 -0.2 2\n25\n" + "%.7g %.7g %.7g 0 0 0 0 1 0 0 0 2\n" * NUM_JOINTS


def write_ntu(
    out: Path, classes: int = 10, subjects: int = 12, repetitions: int = 5, cameras: int = 1, seed: int = 0
) -> int:
    """Write `.skeleton` files into a new folder, which appears once it is complete; return their number.

    Subjects 1, 2, ... repeat each of the first `classes` actions; all cameras record the same performances.
    Another seed gives other performances by the same people.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; remove it or choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    takes = list(itertools.product(range(classes), range(1, subjects + 1), range(repetitions)))
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.tmp-", dir=out.parent) as temporary:
        folder = Path(temporary, out.name)
        folder.mkdir()
        for (action, subject, take), camera in itertools.product(takes, list(CAMERAS)[:cameras]):
            # two takes in each setup; no sample of replication 3 or 4 is on NTU's list of missing skeletons
            place = f"S{1 + take // 2:03d}C{camera:03d}P{subject:03d}R{3 + take % 2:03d}A{action + 1:03d}"
            clip = make_clip([seed, action, subject, take], action, subject, camera)
            frames = ["1\n" + BODY % tuple(joints.ravel()) for joints in clip]
            (folder / f"{place}{SUFFIX}").write_text(f"{len(clip)}\n{''.join(frames)}")
        folder.rename(out)
    return len(takes) * cameras


def make_clip(seed: list[int], action: int, subject: int, camera: int = 2) -> np.ndarray:
    """Return a recording of one person, (T, 25, 3) metres in the camera's frame.

    Args:
        seed: seed of all that varies; each camera records the same performance, with errors of its own.
        action: index into `ACTIONS`.
        subject: number of the person.
        camera: 1, 2 or 3.
    """
    rng = np.random.default_rng(seed)
    degrees = draw_motion(rng, action)
    yaw = rng.uniform(-40, 40) + CAMERAS[camera]
    skew = np.eye(3) + rng.uniform(-0.6, 0.6, (3, 3)) * (1 - np.eye(3))  # a camera that is not calibrated
    place = rng.uniform((-0.5, -1.1, 2.6), (0.5, -0.6, 3.8))
    joints = pose(make_body(subject), degrees) @ rotation(np.array((0, yaw, 0))).T @ skew.T + place
    rng = np.random.default_rng([*seed, camera])
    joints += rng.normal(0, NOISE, joints.shape)
    guess = joints[:, [SPINE_MID]] + rng.normal(0, 0.003, joints.shape)
    return np.where(rng.random((NUM_JOINTS, 1)) < LOST, guess, joints)


def draw_motion(rng: np.random.Generator, action: int) -> np.ndarray:
    """Return joint angles for `pose`, (T, 25, 3) degrees: the swings of an action about a posture."""
    hertz, limbs, swings = list(ACTIONS.values())[action]
    frames, side = int(rng.integers(60, 111)), int(rng.integers(2))  # NTU RGB+D has about 80 frames
    degrees = np.zeros((frames, NUM_JOINTS, 3))
    for part, (middle, width) in POSTURES.items():
        degrees[:, sides(part)] = middle + rng.uniform(-1, 1, (len(sides(part)), 3)) * width
    cycles = hertz * rng.uniform(0.85, 1.15) * np.arange(frames) / FPS + rng.random()
    amplitude = rng.uniform(0.9, 1.1)
    for (part, axis), (size, lag) in swings.items():
        joints = sides(part)[side:][:1] if limbs == "one" else sides(part)
        for number, joint in enumerate(joints):
            shift = lag + 0.5 * number * (limbs == "alternate")
            degrees[:, joint, "xyz".index(axis)] += amplitude * size * np.sin(2 * np.pi * (cycles + shift))
    return degrees


def sides(part: str) -> list[int]:
    """Return the joints of a part of the body: left and right of "elbow", one of "neck"."""
    names = (part, f"left {part}", f"right {part}")
    return [joint for joint, name in enumerate(JOINT_NAMES) if name in names]


@functools.cache
def make_body(subject: int) -> np.ndarray:
    """Return the offset of each joint from its parent at rest, (25, 3) metres, of the person of a number."""
    rng = np.random.default_rng([2023, subject])
    height, body = rng.uniform(1.5, 1.9), np.zeros((NUM_JOINTS, 3))
    for joint, (_, offset) in TREE.items():
        right = JOINT_NAMES.index(joint)
        stretched = height * np.array(offset) * rng.normal(1, 0.05, 3)
        body[MIRROR[right]], body[right] = stretched * (-1, 1, 1), stretched
    return body


def pose(body: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return the joints, (T, 25, 3) metres, of a body that stands on the ground: x right, y up, z back.

    Args:
        body: offset of each joint from its parent at rest, (25, 3).
        degrees: rotation of each joint about x, y, z, (T, 25, 3). On the right side, x lifts an arm or thigh
            to the front and bends the elbow, y turns it inwards, z lifts it sideways.
    """
    turned, joints = rotation(degrees * SIGNS), np.zeros(degrees.shape)
    for joint, parent in PARENTS.items():
        if joint != parent:
            turned[:, joint] = turned[:, parent] @ turned[:, joint]
            joints[:, joint] = joints[:, parent] + turned[:, parent] @ body[joint]
    joints[..., 1] -= joints[..., 1].min(axis=1, keepdims=True)
    return joints


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Return the matrices Rx Rz Ry, (..., 3, 3), of angles (..., 3) about x, y, z."""
    radians = np.moveaxis(np.radians(degrees), -1, 0)
    (cx, cy, cz), (sx, sy, sz) = np.cos(radians), np.sin(radians)
    rows = (
        (cz * cy, -sz, cz * sy),
        (cx * sz * cy + sx * sy, cx * cz, cx * sz * sy - sx * cy),
        (sx * sz * cy - cx * sy, sx * cz, sx * sz * sy + cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def get_parser() -> CommandLine:
    """Return the command line; its flags are the arguments of `write_ntu`."""
    parser = CommandLine("feeder.synthetic", __doc__)
    parser.add_argument("out", type=Path, help="folder to write, new or empty")
    for name, default, low, high, what in (
        ("classes", 10, 2, len(ACTIONS), "actions"),
        ("subjects", 12, 3, 40, "people"),
        ("repetitions", 5, 1, 64, "repetitions of each action by each person"),
        ("cameras", 1, 1, 3, "views of each performance"),
    ):
        text, choices = f"{what}, {low} .. {high} ({default})", range(low, high + 1)
        parser.add_argument(f"--{name}", type=int, choices=choices, default=default, metavar="N", help=text)
    text = "seed of the performances, from 0; the people stay the same (0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Write the data set that the command line describes."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"--seed: {args.seed} is below 0")
    print(f"{args.out}: {write_ntu(**vars(args))} clips")


if __name__ == "__main__":
    main()
