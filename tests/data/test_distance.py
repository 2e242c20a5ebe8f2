"""Signed distances against all pairs of voxels."""
import numpy as np
import pytest

from elektronn2.data.distance import UNKNOWN, signed_distance


def by_pairs(ids, size, reach):
    """The distance to each voxel with another id, one by one."""
    points = np.argwhere(np.ones(ids.shape, bool)) * np.array(size)
    flat, result = ids.ravel(), np.empty(ids.size)
    for k, point in enumerate(points):
        way = np.sqrt(((points - point) ** 2).sum(1))
        d = min(way[flat != flat[k]].min(initial=np.inf), reach)
        unknown = way[flat < 0].min(initial=np.inf)
        result[k] = UNKNOWN if flat[k] < 0 or (unknown <= d and d < reach) else d if flat[k] else -d
    return result.reshape(ids.shape)


@pytest.mark.parametrize("size, reach", [((1, 1, 1), 3), ((2.5, 1, 1), 4.2), ((1, 0.75, 2), 100)])
def test_it_is_the_distance_to_the_nearest_other_id(size, reach, rng):
    coarse = rng.integers(0, 4, (3, 4, 4))
    ids = coarse.repeat(2, 0).repeat(3, 1).repeat(2, 2)
    np.testing.assert_allclose(signed_distance(ids, size, reach), by_pairs(ids, size, reach), rtol=1e-6)
    ids = np.where(rng.random(ids.shape) < 0.01, -1, ids)
    wanted = by_pairs(ids, size, reach)
    assert 0 < np.mean(wanted == UNKNOWN) < 0.5
    np.testing.assert_allclose(signed_distance(ids, size, reach), wanted, rtol=1e-6)


def test_scaled_and_alone():
    ids = np.zeros((1, 1, 9), np.uint16)
    ids[..., 4:] = 3
    plain, scaled = signed_distance(ids), signed_distance(ids, scale=2)
    assert plain.dtype == scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.tanh(plain / 2))
    assert np.all(signed_distance(ids * 0, reach=7) == -7)
    for wrong in (dict(reach=0), dict(scale=0), dict(voxel_size=(1, 0, 1)), dict(reach=np.inf)):
        with pytest.raises(ValueError, match="must be above 0"):
            signed_distance(ids, **wrong)
