"""Bodies with individual proportions, posed by joint angles; joints as in `feeder.skeleton`.

Coordinates are metres in the person's own frame: x to the right, y up, z to the back.
"""

from functools import cache

import numpy as np

from feeder.skeleton import JOINT_NAMES, MIRROR, NUM_JOINTS

# The middle and the right half of a body of height 1 at rest, from the pelvis outwards: joint -> parent and
# offset from it. The left half is the mirror image.
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


@cache
def make_body(subject: int) -> np.ndarray:
    """Return the offset of each joint from its parent at rest, (25, 3), of the person with this number."""
    rng = np.random.default_rng([2023, subject])
    height, body = rng.uniform(1.5, 1.9), np.zeros((NUM_JOINTS, 3))
    for joint, (_, offset) in TREE.items():
        right = JOINT_NAMES.index(joint)
        stretched = height * np.array(offset) * rng.normal(1, 0.05, 3)
        body[MIRROR[right]], body[right] = stretched * (-1, 1, 1), stretched
    return body


def pose(body: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return the joints, (T, 25, 3), of a body that stands on the ground.

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
