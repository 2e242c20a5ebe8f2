"""Targets made of ids for each patch are those that the whole volume would have."""
from itertools import product

import numpy as np
import pytest
from test_cnndata import write

from elektronn2 import neuromancer as nm
from elektronn2.data.cnndata import BatchCreatorImage
from elektronn2.data.distance import UNKNOWN, signed_distance
from elektronn2.data.image import affinity_targets, grow_seg, ids2barriers, make_nhood_targets
from elektronn2.data.targets import TargetMaker

LONG = [(1, 0, 0), (0, -3, 0), (0, 2, 5)]


@pytest.fixture
def cells(rng):
    """Ids (20, 44, 46) of uint16 blocks, some of them 0, and an image (3, 20, 44, 46) that tells the position."""
    ids = rng.integers(0, 9, (3, 5, 4)).repeat(7, 0).repeat(9, 1).repeat(12, 2)[:20, :44, :46].astype(np.uint16)
    return ids, np.indices(ids.shape).astype(np.float32)


def target_nodes(n, dtype="int16", flat=False):
    x = nm.Input((1, 3, *(() if flat else (7,)), 17, 15), "b,f,x,y" if flat else "b,f,z,x,y")
    filters, pools = ((4, 4), (2, 2)) if flat else ((3, 4, 4), (1, 2, 2))
    return x, nm.Input_like(nm.Conv(x, 2, filters, pools, activation_func="lin"), dtype, override_f=n)


def distance(ids):
    return signed_distance(ids, (2, 1, 1), 5)[None]


CASES = [("barriers", "int16", 1, lambda ids: ids2barriers(ids)[None]),
         (("barriers", dict(dilute=(False, True, False), smoothen=True, ecs_as_barr="new_class")), "int32", 1,
          lambda ids: ids2barriers(ids, (False, True, False), ecs_as_barr="new_class", smoothen=True)[None]),
         ("affinities", "int16", 3, affinity_targets),
         (("affinities", dict(nhood=LONG)), "float32", 3, lambda ids: affinity_targets(ids, LONG)),
         (["shifted"], "int32", 7, lambda ids: make_nhood_targets(ids[None])[0]),
         (("shifted", dict(nhood=LONG)), "int32", 3, lambda ids: make_nhood_targets(ids[None], LONG)[0]),
         (("signed_distance", dict(reach=5)), "float32", 1, distance),
         ([("grow", dict(pixel=(0, 2, 1))), "affinities"], "int16", 3,
          lambda ids: affinity_targets(grow_seg(ids, (0, 2, 1)))),
         (("grow", dict(pixel=(1, 1, 1))), "int16", 1, lambda ids: grow_seg(ids, (1, 1, 1))[None])]


@pytest.mark.parametrize("targets, dtype, n, whole", CASES, ids=[str(c[0]) for c in CASES])
def test_a_patch_has_the_targets_of_the_whole_volume(targets, dtype, n, whole, cells, tmp_path):
    ids, image = cells
    x, target = target_nodes(n, dtype)
    data = BatchCreatorImage(x, target, seed=1, targets=targets, **write(tmp_path, [image], [ids]))
    assert data.t_n_f == n
    wanted, kinds = whole(ids.astype(np.int64)), set()
    for k, dense in product(range(6), (False, True)):
        patch, made = data.sample(k, flip=False, force_dense=dense)
        start = patch[:, 0, 0, 0].astype(int) + data.offsets
        step = (1, 1, 1) if dense else (1, 2, 2)
        box = tuple(slice(o, o + t, s) for o, t, s in zip(start, data.target_ps, step))
        assert made.dtype == dtype and made.shape[1:] == ((5, 13, 11) if dense else (5, 7, 6))
        assert np.array_equal(made, wanted[(slice(None), *box)])
        kinds.update(np.unique(made).tolist())
    assert len(kinds) >= (3 if "new_class" in str(targets) else 2) and kinds <= set(np.unique(wanted).tolist())
    streamed = BatchCreatorImage(x, target, seed=1, targets=targets, h5stream=True, **write(tmp_path, [image], [ids]))
    for a, b in zip(data.sample(3, warp=1), streamed.sample(3, warp=1)):
        assert np.array_equal(a, b)


def test_they_are_made_after_the_warp(cells, tmp_path):
    """A warped patch has barriers of its own warped ids: thin ones, and none that interpolation invented."""
    ids, image = cells
    files = write(tmp_path, [image], [ids])
    options = dict(warp=1, warp_args=dict(warp_amount=0.3), force_dense=True)
    made = BatchCreatorImage(*target_nodes(1), seed=1, targets=("barriers", dict(dilute=(False,) * 3)), **files)
    plain = BatchCreatorImage(*target_nodes(1), seed=1, targets=("grow", dict(pixel=(1, 1, 1))), **files)
    for k in range(4):  # the same margin, and so the same place
        image, barriers = made.sample(k, **options)
        other, grown = plain.sample(k, **options)
        assert np.array_equal(image, other)
        inside = (barriers == 0)[0]
        assert 0.02 < inside.mean() < 0.9
        for axis in range(3):  # no change of ids where there is no barrier
            a, b = (np.take(grown[0], range(i, grown.shape[axis + 1] - 1 + i), axis) for i in (0, 1))
            both = np.take(inside, range(inside.shape[axis] - 1), axis) & np.take(inside, range(1, inside.shape[axis]), axis)
            assert np.all((a == b)[both])


def test_sections_are_taken_each_for_itself(cells, tmp_path):
    ids, image = cells
    files = write(tmp_path, [image], [ids])
    for targets, n, whole in (("barriers", 1, lambda s: ids2barriers(s)[None]), ("affinities", 2, affinity_targets),
                              ("shifted", 5, lambda s: make_nhood_targets(s[None], [(0, 0, 0), (0, 1, 0), (0, -1, 0),
                                                                                    (0, 0, 1), (0, 0, -1)])[0])):
        data = BatchCreatorImage(*target_nodes(n, flat=True), seed=1, targets=targets, **files)
        patch, made = data.sample(0, flip=False)
        z, *start = patch[:, 0, 0].astype(int) + (0, *data.offsets)
        box = tuple(slice(o, o + t, 2) for o, t in zip(start, data.target_ps))
        assert np.array_equal(made, whole(ids[z:z + 1].astype(int))[(slice(None), 0, *box)])
    with pytest.raises(ValueError, match="offsets along z, but the network is 2-D"):
        BatchCreatorImage(*target_nodes(3, flat=True), targets=("affinities", dict(nhood=LONG)), **files)


def test_other_channels_are_kept_behind(cells, tmp_path):
    ids, image = cells
    labels = np.stack((ids, ids + 1, ids + 2)).astype(np.int32)
    x, target = target_nodes(5)
    data = BatchCreatorImage(x, target, seed=1, targets="affinities", **write(tmp_path, [image], [labels]))
    made = data.sample(0, force_dense=True)[1]
    assert made.shape[0] == 5 and np.array_equal(made[4], made[3] + 1)
    assert np.array_equal(made[2][..., :-1] == 1, (made[3][..., :-1] == made[3][..., 1:]) & (made[3][..., 1:] > 1))


# -- what is not labelled --------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [dict(), dict(dilute=(False, False, True)), dict(smoothen=True),
                                     dict(connectivity=(False, True, False), dilute=(True, False, False)),
                                     dict(ecs_as_barr=False), dict(ecs_as_barr="new_class")], ids=str)
def test_barriers_are_unlabelled_where_unlabelled_ids_decide(options, rng):
    for _ in range(4):
        ids = rng.integers(0, 3, (1, 2, 2)).repeat(5, 0).repeat(3, 1).repeat(4, 2)
        unknown = tuple(rng.integers(0, n) for n in ids.shape), tuple(rng.integers(0, n) for n in ids.shape)
        filled = []
        for values in product((0, 1, 2, 98, 99), repeat=2):
            for where, value in zip(unknown, values):
                ids[where] = value
            filled.append(ids2barriers(ids, **options))
        for where in unknown:
            ids[where] = -1
        got, open_ = ids2barriers(ids, **options), np.ptp(filled, axis=0) > 0
        assert np.all(got[ids < 0] == -1) and np.all(got[open_] == -1) and np.array_equal(got[got >= 0], filled[0][got >= 0])
        assert np.mean((got < 0) & ~open_) < 0.05  # between two ids, a change may be sure whatever is between them


def test_sparse_annotations_say_nothing_elsewhere(cells, tmp_path):
    """Ids in some sections only: edges and barriers within them are known, all others are not."""
    ids, image = cells
    sparse = ids.astype(np.int16)
    sparse[np.arange(20) % 4 != 0] = -7
    files = write(tmp_path, [image], [sparse])
    data = BatchCreatorImage(*target_nodes(3), seed=1, targets="affinities", **files)
    seen = 0
    for k in range(8):
        patch, made = data.sample(k, flip=False)
        labelled = (patch[0, 1:-1, 0, 0] % 4 == 0)
        assert np.all(made[0] == -1) and np.all(made[:, ~labelled] == -1)
        assert np.all(made[1:, labelled] >= 0)
        seen += labelled.sum()
    assert seen > 4
    part = ("barriers", dict(connectivity=(False, True, True), dilute=(False, True, True)))
    flat = BatchCreatorImage(*target_nodes(1), seed=1, targets=part, **files)
    for k in range(8):  # sections without labels are drawn again
        patch, made = flat.sample(k, flip=False, ignore_thresh=0.79)
        assert set(np.unique(made[:, patch[0, 1:-1, 0, 0] % 4 == 0])) <= {0, 1} and np.mean(made < 0) <= 0.8
    half = np.where(np.arange(60) < 30, 1, np.nan) * np.ones((60, 60, 60))
    far = BatchCreatorImage(*target_nodes(1, "float32"), seed=1, targets="signed_distance",
                            **write(tmp_path, [np.zeros((3, 60, 60, 60), np.float32)], [half]))
    assert {UNKNOWN, 10} <= {float(v) for k in range(9) for v in np.unique(far.sample(k)[1])}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint64"])
def test_a_mask_takes_labels_out(stream, dtype, cells, tmp_path, rng):
    ids, image = cells
    mask = rng.integers(0, 2, ids.shape).astype(np.uint8) * 3
    files = write(tmp_path, [image, image], [ids.astype(dtype)] * 2, mask=[mask, mask], short=[mask[1:]] * 2)
    x, target = target_nodes(1, "int32")
    bare = BatchCreatorImage(x, target, seed=2, cube_prios=[1, 0], **files)
    data = BatchCreatorImage(x, target, seed=2, h5stream=stream, m_files=[("lab_0.h5", "mask"), None], cube_prios=[1, 0],
                             **files)
    place = BatchCreatorImage(x, target, seed=2, m_path=tmp_path, h5stream=stream, cube_prios=[1, 0],
                              **{**files, "l_files": [("lab_0.h5", "mask"), ("lab_1.h5", "mask")]})
    for options in (dict(), dict(warp=1)):
        got, all_labels, kept = (d.sample(4, **options)[1] for d in (data, bare, place))
        assert np.array_equal(got, np.where(kept > 0, all_labels, -666 if dtype == "float32" else -1))
        assert 0.3 < np.mean(got >= 0) < 0.7
    assert data.train_l[0].dtype == {"uint8": "int16", "uint64": "int64"}.get(dtype, dtype)
    with pytest.raises(ValueError, match=r"Cube 1 \(raw_1.h5:raw, lab_1.h5:lab\): the mask has shape \(1, 19, 44, 46\)"):
        BatchCreatorImage(x, target, m_files=[None, ("lab_1.h5", "short")], **files)


# -- where labels lie ------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
def test_labels_with_an_offset(stream, cells, tmp_path):
    _, image = cells
    corners = [(3, 5, 0), (8, 1, 20)]
    parts = [image[:, z:z + 11, x:x + 30, y:y + 25] for z, x, y in corners]
    x, target = target_nodes(3, "float32")
    data = BatchCreatorImage(x, target, seed=1, label_offset=corners, h5stream=stream,
                             **write(tmp_path, [image, image], parts))
    inner = tuple(slice(o, o + t, s) for o, t, s in zip(data.offsets, data.target_ps, data.strides))
    starts = []
    for k in range(60):
        patch, labels = data.sample(k, warp=0.3, warp_args=dict(warp_amount=0.1))
        assert np.array_equal(labels, np.rint(labels)) and np.abs(labels - patch[(slice(None), *inner)]).max() < 1
        plain = data.sample(k, flip=False)[0]
        starts.append(plain[:, 0, 0, 0].astype(int))
    cube = np.array([np.all(s + data.offsets >= corners[1]) for s in starts])
    assert 10 < cube.sum() < 50
    first = np.array(starts)[~cube].min(0)
    assert np.all(first >= np.maximum(np.array(corners[0]) - data.offsets, 0)) and np.all(first <= (3, 8, 3))
    with pytest.raises(ValueError, match=r"Cube 0 .*, axis y: no patch of 15 voxels .* from image voxel 40 on"):
        BatchCreatorImage(x, target, label_offset=(0, 0, 40), **write(tmp_path, [image], parts[:1]))
    for wrong in ((1, 2), [(1, 2, 3)], "abc", 3, (0.5, 0, 0)):
        with pytest.raises(ValueError, match="label_offset must be three integers"):
            BatchCreatorImage(x, target, label_offset=wrong, **write(tmp_path, [image, image], parts))


# -- mistakes --------------------------------------------------------------------------------------------
def test_wrong_targets_are_named(cells, tmp_path):
    ids, image = cells
    files = write(tmp_path, [image], [ids])
    cases = [("barrier", "Did you mean 'barriers'"), (("barriers", dict(dilut=1)), "Did you mean 'dilute'"),
             (3, "targets must be a name"), ([], "targets must be a name"), (["barriers", "affinities"], "leaves none"),
             (("barriers", dict(ecs_as_barr="no")), "ecs_as_barr must be True, False or"),
             (("affinities", dict(nhood=[(1, 0)])), "nhood"), (("barriers", dict(dilute=3)), "'barriers' cannot be made"),
             (("signed_distance", dict(reach=-1)), "must be above 0"), ("signed_distance", "real numbers, but the target"),
             ("affinities", "makes 3 channels, but .* Give it override_f=3"), (("grow", dict(pixel="4")), "'grow' cannot"),
             (("grow", dict(pixel=(0, -1, 0))), "'grow' cannot be made with .*: pixel must be at least 0")]
    for targets, message in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            BatchCreatorImage(*target_nodes(1), targets=targets, **files)
    with pytest.raises(ValueError, match="as are the targets of this data set"):
        BatchCreatorImage(*target_nodes(1), targets="barriers", **files).getbatch(affinities="malis")
    with pytest.raises(ValueError, match="name it in target_discrete_ix"):
        BatchCreatorImage(*target_nodes(1), targets="barriers", target_discrete_ix=[], **files)
    with pytest.raises(ValueError, match=r"no whole numbers in \[2:3, 0:44, 0:46\]"):
        halves = ids.astype(np.float32)
        halves[2] += 0.5
        BatchCreatorImage(*target_nodes(1), targets="barriers", **write(tmp_path, [image], [halves]))
    with pytest.raises(ValueError, match=r"ids go up to 9223372036854775808, in \[0:1, 0:1, 0:1\]"):
        large = ids.astype(np.uint64)
        large[0, 0, 0] = 2 ** 63
        BatchCreatorImage(*target_nodes(1), targets="barriers", **write(tmp_path, [image], [large]))
    x, target = target_nodes(1)
    probs = nm.Softmax(nm.Conv(x, 2, (3, 4, 4), (1, 2, 2), activation_func="lin"))
    nm.MultinoulliNLL(probs, target, target_is_sparse=True)
    with pytest.raises(ValueError, match="makes 3 classes, but the network has 2"):
        BatchCreatorImage(x, target, targets=("barriers", dict(ecs_as_barr="new_class")), **write(tmp_path, [image], [ids]))
    BatchCreatorImage(x, target, targets="barriers", **write(tmp_path, [image], [ids])).getbatch()  # ids may be many


def test_ids_must_be_numbers_that_targets_can_hold():
    maker = TargetMaker("barriers", 3, 1)
    assert maker.n_class == 2 and not maker.makes_ids and maker.margin.tolist() == [[2, 2]] * 3
    assert TargetMaker(("shifted", dict(nhood=LONG)), 3, 1).margin.tolist() == [[1, 0], [2, 3], [5, 0]]
    assert TargetMaker(("affinities", dict(nhood=LONG)), 3, 1).margin.tolist() == [[0, 1], [3, 2], [0, 5]]
    assert TargetMaker("signed_distance", 3, 2.5).margin.tolist() == [[4, 4], [10, 10], [10, 10]]
    assert TargetMaker("signed_distance", 2, 2.5).margin.tolist() == [[0, 0], [10, 10], [10, 10]]
