"""Helpers: evaluation against scikit-style definitions, files, arguments."""
import numpy as np
import pytest

from elektronn2.utils.basic import as_float, atomic_write, h5load, h5save
from elektronn2.utils.cnncalculator import cnncalculator
from elektronn2.utils.evaluation import roc_auc
from elektronn2.utils.validate import as_tuple, suggest


def test_auc_is_the_share_of_ordered_pairs(rng):
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 8, 60)  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert np.isclose(roc_auc(labels, scores), np.mean(pairs))
    assert np.isnan(roc_auc([1, 1], [0.1, 0.2]))


def test_h5_files(tmp_path, rng):
    a, b = rng.random((3, 4)), rng.integers(0, 9, 5)
    h5save([a, b], tmp_path / "f.h5", ["a", "b"])
    assert np.array_equal(h5load(tmp_path / "f.h5", "b"), b)
    assert [x.shape for x in h5load(tmp_path / "f.h5")] == [(3, 4), (5,)]
    with pytest.raises(KeyError, match=r"no data set \['c'\]; available: \['a', 'b'\]"):
        h5load(tmp_path / "f.h5", ["a", "c"])
    with pytest.raises(ValueError, match="2 arrays but 1 keys"):
        h5save([a, b], tmp_path / "g.h5", ["a"])


def test_atomic_write_leaves_nothing_when_it_fails(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        with open(temporary, "w") as f:
            f.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_cnncalculator_is_also_its_module():
    import elektronn2.utils.cnncalculator as cc
    assert cc.get_valid_patch_sizes([3], [2])[:3] == [4, 6, 8] and cc.cnncalculator is cc
    assert cc.get_closest_valid_patch_size([3], [2], 7) == cc.get_cloesest_valid_patch_size([3], [2], 7) == 6


def test_arguments():
    assert as_tuple(np.int64(2), 3, "n") == (2, 2, 2) and as_tuple([1, 2], 2, "n") == (1, 2)
    with pytest.raises(ValueError, match="n needs 3 values"):
        as_tuple((1, 2), 3, "n")
    with pytest.raises(TypeError, match="n must be one integer or 2 integers, got 1.5"):
        as_tuple(1.5, 2, "n")
    with pytest.raises(ValueError, match="at least 1"):
        as_tuple(0, 2, "n")
    assert suggest("xyz", ["abc"]) == ""
    with pytest.raises(TypeError, match="no known scale"):
        as_float(np.zeros(3, np.int64))


def test_cnncalculator_on_a_graph():
    """The sizes of a whole model, against those of its chain."""
    from elektronn2 import neuromancer as nm
    x = nm.Input((1, 1, 23, 183), "b,f,z,x")
    out = nm.Conv(nm.Conv(nm.Conv(x, 2, (1, 6), (1, 2)), 2, (4, 6), (2, 2)), 2, (3, 3))
    nm.model_manager.getmodel().designate_nodes(x, prediction_node=out)
    for mfp in (False, True):
        chain = cnncalculator([(1, 6), (4, 6), (3, 3)], [(1, 2), (2, 2), (1, 1)], (23, 183), mfp=mfp)
        graph = cnncalculator(nm.model_manager.getmodel(), desired_patch_size=(23, 183), mfp=mfp)
        assert graph.patch_size == chain.patch_size == ([22, 182] if mfp else [23, 183])
        assert graph.valid_patch_sizes == chain.valid_patch_sizes
        assert [f[-1] for f in graph.fields] == [f[-1] for f in chain.fields]
