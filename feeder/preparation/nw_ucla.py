"""NW-UCLA in JSON form -> arrays. Running the command again replaces them.

    python -m feeder.preparation.nw_ucla FOLDER      # -> data/NW-UCLA/{xsub,xview}

FOLDER is where the archive was unpacked: `all_sqe/a01_s01_e00_v01.json` and so on may be anywhere below it.
A file becomes a sample of the same name: action, subject, repetition, view.
"""

import json

import numpy as np

from feeder.cli import CommandLine, UserError, script
from feeder.data_sets import DATA_SETS
from feeder.preparation.command import archive_parser, find_sources, prepare
from feeder.preparation.sources import Result, Source, to_result

# Kinect v1: 0 hip centre, 1 spine, 2 shoulder centre, 3 head; 4-7 left shoulder, elbow, wrist, hand, 8-11
# right; 12-15 left hip, knee, ankle, foot, 16-19 right
NUM_JOINTS = 20
# The joint here of each joint of feeder.skeleton; hand tips and thumbs repeat the hands.
JOINTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 7, 7, 11, 11)
NECK, SHOULDER_CENTRE, HEAD = 2, 2, 3  # the neck of feeder.skeleton is one third of the way up to the head


def read_clips(source: Source) -> list[Result]:
    """Return the only clip of a file."""
    try:
        recording = json.loads(source.path.read_bytes())
        joints, label = np.array(recording["skeletons"], float), recording["label"]
        if joints.shape[1:] != (NUM_JOINTS, 3) or not np.isfinite(joints).all():
            raise ValueError(f"{joints.shape} is not (frames, {NUM_JOINTS}, 3) of finite numbers")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"not JSON of a label and skeletons of {NUM_JOINTS} joints: {error}"
        raise UserError(f"{source.path}: {reason}") from None
    expected = source.samples[0].label + 1
    if label != expected:
        raise UserError(f"{source.path}: label {label!r}, but this action has label {expected}")
    return [to_result(source.path, to_ntu_joints(joints)[None])]


def to_ntu_joints(joints: np.ndarray) -> np.ndarray:
    """Return (T, 20, 3) joints of Kinect v1 as the joints of feeder.skeleton, (T, 25, 3)."""
    body = joints[:, JOINTS]
    body[:, NECK] = (2 * joints[:, SHOULDER_CENTRE] + joints[:, HEAD]) / 3
    return body


def get_parser() -> CommandLine:
    """Return the command line."""
    return archive_parser("nw_ucla", "Prepare NW-UCLA from its JSON files.")


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the folder on the command line."""
    args = get_parser().parse_args(argv)
    sources = find_sources(args.folder, "nw_ucla", ".json", "all_sqe/a01_s01_e00_v01.json")
    prepare(args, "nw_ucla", DATA_SETS["nw_ucla"].counts, sources, read_clips)


if __name__ == "__main__":
    main()
