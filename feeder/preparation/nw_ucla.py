"""NW-UCLA in JSON form -> arrays. Running the command again replaces them.

    python -m feeder.preparation.nw_ucla FOLDER      # -> data/NW-UCLA/{xsub,xview}

FOLDER is where the archive was unpacked: `all_sqe/a01_s01_e00_v01.json` and so on may be anywhere below it.
A file becomes a sample of the same name: action, subject, repetition, view.
"""

import json
from pathlib import Path

import numpy as np

from feeder.cli import CommandLine, UserError, script
from feeder.preparation import public
from feeder.preparation.generate import Result, Source, to_result

# Kinect v1: 0 hip centre, 1 spine, 2 shoulder centre, 3 head; 4-7 left shoulder, elbow, wrist, hand, 8-11
# right; 12-15 left hip, knee, ankle, foot, 16-19 right
NUM_JOINTS = 20
# The joint here of each joint of feeder.skeleton; hand tips and thumbs repeat the hands.
JOINTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 7, 7, 11, 11)
NECK, SHOULDER_CENTRE, HEAD = 2, 2, 3  # the neck of feeder.skeleton is one third of the way up to the head


def list_sources(folder: Path) -> list[Source]:
    """Return a source for each recording below a folder."""
    files = public.find_files(folder, rf"(?:.*/)?(?P<name>{public.NW_UCLA.pattern})\.json")
    sources = public.list_sources(public.NW_UCLA, files)
    if not sources:
        needed = "it should have all_sqe/a01_s01_e00_v01.json and so on"
        raise UserError(f"{folder}: no recordings of NW-UCLA; {needed} (docs/data.md)")
    return sources


def read_clips(source: Source) -> list[Result]:
    """Return the only clip of a file."""
    joints, label = read_recording(source.path)
    expected = source.samples[0].label + 1
    if label != expected:
        raise UserError(f"{source.path}: label {label!r}, but this action has label {expected}")
    return [to_result(source.path, to_ntu_joints(joints)[None])]


def read_recording(path: Path) -> tuple[np.ndarray, object]:
    """Return the joints of a file, (T, 20, 3) in metres, and its label."""
    try:
        recording = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file: {error}") from None
    try:
        joints, label = np.array(recording["skeletons"], float), recording["label"]
    except (KeyError, TypeError, ValueError):  # other entries, or not the same number of joints in each frame
        raise UserError(f"{path}: not a label and skeletons of {NUM_JOINTS} joints with x y z") from None
    if joints.shape[1:] != (NUM_JOINTS, 3):
        raise UserError(f"{path}: skeletons {joints.shape}, expected (frames, {NUM_JOINTS}, 3)")
    finite = np.isfinite(joints).all((1, 2))
    if not finite.all():
        raise UserError(f"{path}: frame {finite.argmin() + 1}: NaN or infinite")
    return joints, label


def to_ntu_joints(joints: np.ndarray) -> np.ndarray:
    """Return (T, 20, 3) joints of Kinect v1 as the joints of feeder.skeleton, (T, 25, 3)."""
    body = joints[:, JOINTS]
    body[:, NECK] = (2 * joints[:, SHOULDER_CENTRE] + joints[:, HEAD]) / 3
    return body


def get_parser() -> CommandLine:
    """Return the command line."""
    return public.command_line("nw_ucla", "Prepare NW-UCLA from its JSON files.", "data/NW-UCLA")


@script
def main(argv: list[str] | None = None) -> None:
    """Prepare the folder on the command line."""
    args = get_parser().parse_args(argv)
    public.prepare(args, public.NW_UCLA, list_sources(args.folder), read_clips)


if __name__ == "__main__":
    main()
