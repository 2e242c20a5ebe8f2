"""Preview cubes come from any format, and only their middle is read."""
import numpy as np
import pytest

from elektronn2 import neuromancer as nm
from elektronn2.data.volumes import convert
from elektronn2.training.preview import central_slices, load_cubes
from elektronn2.utils.basic import h5save


@pytest.mark.parametrize("name", ["em.zarr", "em.npy", "em.tif"])
def test_cubes_of_every_format(name, rng, tmp_path):
    raw = rng.integers(0, 256, (20, 30, 40), np.uint8)
    convert(raw, tmp_path / name)
    image = nm.Input((1, 1, 5, 9, 9), "b,f,z,x,y")
    node = nm.Conv(image, 2, (3, 3, 3))
    cube, = load_cubes(tmp_path / name)
    part = central_slices(node, cube, 4)
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part[0], raw[7:13].astype(np.float32) / 255)
    np.testing.assert_array_equal(central_slices(node, raw.transpose(1, 2, 0), 4), part)


def test_all_data_sets_of_an_h5_file(rng, tmp_path):
    raw = rng.random((2, 6, 7, 8), np.float32)
    h5save([raw, raw[0]], tmp_path / "em.h5", ["a", "b"])
    assert [cube.shape for cube in load_cubes(tmp_path / "em.h5")] == [(2, 6, 7, 8), (1, 6, 7, 8)]
    one, = load_cubes((tmp_path / "em.h5", "b"))
    np.testing.assert_array_equal(one[0], raw[0])
