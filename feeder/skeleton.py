"""The Kinect v2 skeleton of NTU RGB+D and PKU-MMD: joints, bones, left-right pairs."""

JOINT_NAMES = (
    *("spine base", "spine mid", "neck", "head"),
    *("left shoulder", "left elbow", "left wrist", "left hand"),
    *("right shoulder", "right elbow", "right wrist", "right hand"),
    *("left hip", "left knee", "left ankle", "left foot"),
    *("right hip", "right knee", "right ankle", "right foot"),
    *("spine", "left hand tip", "left thumb", "right hand tip", "right thumb"),
)
NUM_JOINTS = len(JOINT_NAMES)
NUM_BODIES = 2
MAX_FRAMES = 300

# The parent of each joint; the root, joint 20 ("spine", between the shoulders), is its own parent.
# As in the reference, the parent of a hand tip is the thumb, and that of a thumb is the hand.
PARENTS = (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11)
LINKS = tuple((joint, parent) for joint, parent in enumerate(PARENTS) if joint != parent)

# Joint v of a mirrored body is joint MIRROR[v].
MIRROR = tuple(
    JOINT_NAMES.index(name.replace("left", "right") if "left" in name else name.replace("right", "left"))
    for name in JOINT_NAMES
)

# The joints that the normalisation uses (0-based).
SPINE_BASE, SPINE_MID, LEFT_SHOULDER, RIGHT_SHOULDER = 0, 1, 4, 8
