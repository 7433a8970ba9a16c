"""UI-PRMD, the Kinect recordings of correct movements -> arrays. Running the command again replaces them.

    python -m feeder.preparation.ui_prmd FOLDER      # -> data/UI-PRMD/xsub

FOLDER is where the archive was unpacked: `Segmented Movements/Kinect/{Positions,Angles}` may be anywhere
below it, and its files may be gzipped. A positions file and its angles file become a sample: m01_s02_e03.
"""

from pathlib import Path

import numpy as np

from feeder.cli import CommandLine, UserError, script
from feeder.data_sets import DATA_SETS
from feeder.preparation.command import archive_parser, find_files, find_sources, prepare
from feeder.preparation.raw_file import read_positions, read_text
from feeder.preparation.sources import Result, Source, to_result

# 0 waist, 1 spine, 2 chest, 3 neck, 4 head, 5 head tip; 6-9 left collar, upper arm, forearm, hand, 10-13
# right; 14-17 left upper leg, lower leg, foot, toes, 18-21 right. The root has no parent.
PARENTS = (None, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20)
# The joint here of each joint of feeder.skeleton; hand tips and thumbs repeat the hands.
JOINTS = (0, 1, 3, 4, 7, 8, 9, 9, 11, 12, 13, 13, 14, 15, 16, 17, 18, 19, 20, 21, 2, 9, 9, 13, 13)
# positions in centimetres -> metres along the axes of NTU RGB+D
TO_NTU = np.array((-0.01, 0.01, -0.01))
EXAMPLE = "Segmented Movements/Kinect/Positions/m01_s01_e01_positions.txt"


def list_sources(folder: Path) -> list[Source]:
    """Return a source for each pair of files below a folder; the angles file is the segment of the sample."""
    angles = find_files(folder, "ui_prmd", "_angles.txt")
    sources = find_sources(folder, "ui_prmd", "_positions.txt", EXAMPLE)
    return [Source(path, (sample._replace(segment=angles.get(sample.name)),)) for path, (sample,) in sources]


def read_clips(source: Source) -> list[Result]:
    """Return the only clip of a pair of files."""
    (sample,) = source.samples
    if sample.segment is None:
        remedy = "unpack the folder Angles too"
        raise UserError(f"{source.path}: no file {sample.name}_angles.txt for it; {remedy}")
    positions, angles = read_table(source.path), read_table(sample.segment)
    frames = min(len(positions), len(angles))  # some pairs differ by a frame
    joints = place_joints(positions[:frames], angles[:frames])
    return [to_result(source.path, joints[None, :, JOINTS] * TO_NTU)]


def read_table(path: Path) -> np.ndarray:
    """Return the x y z of each joint in each line of a file, (T, 22, 3)."""
    lines = read_text(path).replace(",", " ").split("\n")
    table = read_positions(path, lines, [range(len(lines))], 3 * len(PARENTS))
    return table.reshape(-1, len(PARENTS), 3)


def place_joints(positions: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return the absolute positions (T, 22, 3) by forward kinematics, in the unit of `positions`.

    Args:
        positions: (T, 22, 3); absolute for the root, along the axes of the parent for other joints.
        angles: (T, 22, 3) in degrees about x, y, z, relative to the parent; a rotation is Rz Rx Ry.
    """
    x, y, z = (_rotate(axis, angles[..., axis]) for axis in range(3))
    turns = z @ x @ y  # (T, 22, 3, 3), to become those of each joint's axes in space
    places = positions.copy()
    for joint, parent in enumerate(PARENTS):
        if parent is not None:  # parents come before their children
            places[:, joint] = places[:, parent] + (turns[:, parent] @ positions[:, joint, :, None])[..., 0]
            turns[:, joint] = turns[:, parent] @ turns[:, joint]
    return places


def _rotate(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Return the right-handed rotations (..., 3, 3) about an axis."""
    first, second, turns = (axis + 1) % 3, (axis + 2) % 3, np.zeros((*degrees.shape, 3, 3))
    turns[..., axis, axis] = 1
    turns[..., first, first] = turns[..., second, second] = np.cos(np.radians(degrees))
    turns[..., second, first] = np.sin(np.radians(degrees))
    turns[..., first, second] = -turns[..., second, first]
    return turns


def get_parser() -> CommandLine:
    """Return the command line."""
    return archive_parser("ui_prmd", "Prepare UI-PRMD, the Kinect recordings of correct movements.")


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the folder on the command line."""
    args = get_parser().parse_args(argv)
    prepare(args, "ui_prmd", DATA_SETS["ui_prmd"].counts, list_sources(args.folder), read_clips)


if __name__ == "__main__":
    main()
