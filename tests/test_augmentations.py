"""The augmentations equal the reference and keep their invariants; the draws have the method's ranges."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDENS, Golden

from feeder import augmentations as A
from feeder.skeleton import MIRROR


@pytest.fixture(scope="module")
def golden():
    return Golden("augment")


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-5)


def random_clips(seed, n=3, t=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, t, 25, 2, generator=generator), generator


def test_crops(golden):
    x = golden["x"][None]
    for i, crop in enumerate(golden.meta["crops"]):
        ours = A.crop_resize(x, torch.tensor([crop["start"]]), torch.tensor([crop["length"]]))
        close(ours[0], golden[f"crop{i}"])
    lengths = torch.tensor(golden.meta["center_num_frames"])
    ours = A.centre_crop(x.expand(len(lengths), -1, -1, -1, -1), lengths)
    close(ours, torch.stack([golden[f"center{i}"] for i in range(4)]))


def test_pointwise_operations(golden):
    x, meta = golden["crop1"][None], golden.meta
    close(A.motion(x)[0], golden["motion"])
    close(A.bone(x)[0], golden["bone"])
    close(A.flip(x)[0], golden["flip"])
    close(A.shear(x, torch.tensor([meta["shear"]]))[0], golden["shear"])
    degrees = torch.tensor([case["degrees"] for case in meta["rotate"]])
    rotated = A.rotate(x.expand(3, -1, -1, -1, -1), degrees)
    close(rotated, torch.stack([golden[f"rotate{i}"] for i in range(3)]))
    blocks = torch.zeros(1, 16, dtype=torch.bool)
    blocks[0, meta["temporal"]] = True
    close(A.mask_blocks(x, blocks)[0], golden["temporal"])


def test_spatial_mask(golden):
    for case in golden.meta["spatial"]:
        seeds = torch.tensor([case["seeds"]])
        votes = A.joint_votes(seeds)
        ties = torch.rand(1, 25, generator=torch.Generator().manual_seed(0))
        mask = A.most_voted(votes, ties)[0]
        assert votes[0].tolist() == case["votes"] == A.joint_votes(seeds.byte())[0].tolist()
        assert mask.sum() == 8 and votes[0][mask].min() >= votes[0][~mask].max()
        theirs = torch.zeros_like(mask).index_fill(0, torch.tensor(case["reference_masked"]), True)
        tied = votes[0] == votes[0][mask].min()  # which of these are masked, the reference leaves to its sort
        assert torch.equal(mask & ~tied, theirs & ~tied)
        assert not (tied & ~mask).any() or ties[0][mask & tied].min() >= ties[0][tied & ~mask].max()


def test_each_joint_is_masked_as_often_as_with_random_ties():
    """Within 1 point of 200,000 masks with random ties, and as close to the reference's as they are."""
    expected = json.loads((GOLDENS / "mask_shares.json").read_text())
    generator = torch.Generator().manual_seed(0)
    joints = A.PretrainingViews(p=1.0).draw(torch.full((100_000,), 100), generator).joints
    assert (joints.sum(dim=1) == A.MASKED_JOINTS).all()
    share = joints.double().mean(dim=0)
    assert (share - torch.tensor(expected["random_ties"]["share"])).abs().max() < 0.01
    assert (share - torch.tensor(expected["reference"]["share"])).abs().sum() < 0.36


def test_drawn_crops_keep_their_bounds():
    """Length between the two shares, at least `size` frames or the whole clip."""
    num_frames = torch.tensor([40, 64, 200] * 20_000)
    start, length = A.draw_crop(num_frames, (0.5, 0.8), 64, torch.Generator().manual_seed(0))
    assert (start >= 0).all() and (start + length <= num_frames).all()
    assert (length[num_frames <= 64] == num_frames[num_frames <= 64]).all()
    long = length[num_frames == 200]
    assert long.min() == 100 and long.max() == 159


@pytest.mark.parametrize("seed", range(5))
def test_crop_is_interpolate_of_the_slice(seed):
    x, generator = random_clips(seed, n=6, t=90)
    length = torch.randint(1, 91, (6,), generator=generator)
    start = (torch.rand(6, generator=generator) * (91 - length)).long()
    ours = A.crop_resize(x, start, length)
    for i in range(6):
        part = x[i, :, start[i] : start[i] + length[i]].flatten(2).permute(2, 0, 1)  # (V M, C, L)
        theirs = F.interpolate(part, size=64, mode="linear")
        close(ours[i].flatten(2).permute(2, 0, 1), theirs)


def test_against_plain_numpy():
    x, generator = random_clips(0)
    degrees = torch.rand(3, 3, generator=generator) * 60 - 30
    coefficients = torch.rand(3, 6, generator=generator) * 2 - 1
    rotated, sheared = A.rotate(x, degrees).numpy(), A.shear(x, coefficients).numpy()
    for n in range(3):
        angles = -np.deg2rad(degrees[n].double().numpy())
        (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
        rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        a, b, c, d, e, f = coefficients[n].double().numpy()
        points = x[n].double().numpy().reshape(3, -1)
        np.testing.assert_allclose(rotated[n].reshape(3, -1), rz @ ry @ rx @ points, atol=1e-5)
        matrix = np.array([[1, a, b], [c, 1, d], [e, f, 1]])
        np.testing.assert_allclose(sheared[n].reshape(3, -1), matrix @ points, atol=1e-5)


def test_invariants_of_flip_rotation_shear_bone_and_motion():
    x, _ = random_clips(0)
    assert torch.equal(A.flip(A.flip(x)), x) and sorted(MIRROR) == list(range(25))
    assert torch.equal(A.rotate(x, torch.zeros(3, 3)), x) and torch.equal(A.shear(x, torch.zeros(3, 6)), x)
    whole = torch.tensor([[30, 0, -45], [90, 10, 0], [0, 0, 1]])
    assert torch.equal(A.rotate(x, whole), A.rotate(x, whole.float()))
    torch.testing.assert_close(A.rotate(x, torch.rand(3, 3) * 90).norm(dim=1), x.norm(dim=1))
    assert not A.bone(x)[:, :, :, 20].any() and not A.motion(x)[:, :, -1].any()
    summed = A.motion(x)[:, :, :-1].cumsum(dim=2) + x[:, :, :1]
    torch.testing.assert_close(summed, x[:, :, 1:], rtol=1e-4, atol=1e-4)


def test_draws_follow_the_method():
    views, n = A.PretrainingViews(), 4000
    num_frames = torch.tensor([96, 300, 64, 40]).repeat(n // 4)
    p = views.draw(num_frames, torch.Generator().manual_seed(1))
    length, start = p.length.view(-1, 4), p.start.view(-1, 4)
    assert length[:, 0].min() == 64 and 90 <= length[:, 0].max() <= 96
    assert (length[:, 2] == 64).all() and (length[:, 3] == 40).all() and not start[:, 2:].any()
    assert ((start >= 0) & (start + length <= num_frames.view(-1, 4))).all()
    room = (300 - length[:, 1]).float()
    assert (start[:, 1] / room.clamp(min=1)).mean().item() == pytest.approx(0.5, abs=0.03)
    applied = [p.flipped, *(values.any(dim=1) for values in (p.degrees, p.coefficients, p.joints, p.blocks))]
    for rows in applied:
        assert rows.float().mean().item() == pytest.approx(0.5, abs=0.03)
    rotated = p.degrees[p.degrees.any(dim=1)]
    assert rotated.min() >= 0 and 29 < rotated.max() <= 30
    assert rotated.sort(dim=1).values[:, :2].max() <= 1, "one main axis alone"
    assert p.coefficients.min() < -0.99 and p.coefficients.max() > 0.99
    assert set(p.joints.sum(dim=1).tolist()) == {0, 8} and set(p.blocks.sum(dim=1).tolist()) == {0, 6}


def test_without_masks_all_else_is_drawn_as_with_them():
    num_frames = torch.full((50,), 100)
    views = A.PretrainingViews(), A.PretrainingViews(masks=False)
    whole, bare = (view.draw(num_frames, torch.Generator().manual_seed(1)) for view in views)
    assert whole.joints.any() and whole.blocks.any() and not bare.joints.any() and not bare.blocks.any()
    for name in ("start", "length", "degrees", "flipped", "coefficients"):
        assert torch.equal(getattr(whole, name), getattr(bare, name)), name


@pytest.mark.parametrize("stream", A.STREAMS)
def test_views_are_the_operations_in_order(stream):
    x, generator = random_clips(2, n=8, t=100)
    views = A.PretrainingViews(stream)
    p = views.draw(torch.full((8,), 100), generator)
    expected = A.STREAMS[stream](A.crop_resize(x, p.start, p.length))
    expected = A.rotate(expected, p.degrees)
    expected = torch.stack([A.flip(e[None])[0] if f else e for e, f in zip(expected, p.flipped, strict=True)])
    expected = A.mask_blocks(A.mask_joints(A.shear(expected, p.coefficients), p.joints), p.blocks)
    assert torch.equal(views.apply(x, p), expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_seed_gives_the_same_views_on_any_device_and_the_two_views_differ(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    x, n = random_clips(3, n=8, t=100)[0], torch.full((8,), 100)
    q1, k1 = A.PretrainingViews()(x, n, torch.Generator().manual_seed(0))
    q2, k2 = A.PretrainingViews()(x.to(device), n.to(device), torch.Generator().manual_seed(0))
    tolerance = 1e-4 if device == "cuda" else 0
    torch.testing.assert_close((q2.cpu(), k2.cpu()), (q1, k1), rtol=tolerance, atol=tolerance)
    assert not torch.equal(q1, k1) and q1.shape == (8, 3, 64, 25, 2)


def test_bad_parameters_are_refused():
    x, _ = random_clips(0)
    for start, length in ((0, 21), (-1, 5), (3, 0), (15, 6)):
        with pytest.raises(ValueError, match="leaves its clip of 20 frames"):
            A.crop_resize(x, torch.full((3,), start), torch.full((3,), length))
    with pytest.raises(ValueError, match="unknown stream 'velocity'"):
        A.PretrainingViews("velocity")
    with pytest.raises(ValueError, match="blocks"):
        A.PretrainingViews(size=60)
