"""MALIS weights of tensors and in graphs, against those of arrays."""
import subprocess
import sys

import numpy as np
import pytest
import torch

from elektronn2 import malis
from elektronn2 import neuromancer as nm
from elektronn2.malis.malisop import malis_weights

NHOODS = {2: malis.mknhood2d(), 3: np.array([[-1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 2, 0]])}


def case(rng, ndim, batch=2):
    shape, e = (3, 4, 5)[-ndim:], len(NHOODS[ndim])
    seg = rng.integers(0, 4, (batch, *shape))
    true = np.stack([malis.seg_to_affgraph(s, NHOODS[ndim]) for s in seg])
    return rng.random((batch, e, *shape), np.float32), true, seg


def wanted(pred, true, seg, nhood, unrestrict):
    weights = [malis.malis_weights(*example, nhood, unrestrict) for example in zip(pred, true, seg)]
    return [np.stack(w).astype(np.int64) for w in zip(*weights)]


@pytest.mark.parametrize("unrestrict", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_tensors(rng, ndim, unrestrict):
    """With a batch and without, of tensors of any strides."""
    arrays = case(rng, ndim)
    for got, want in zip(malis_weights(*map(torch.from_numpy, arrays), NHOODS[ndim], unrestrict),
                         wanted(*arrays, NHOODS[ndim], unrestrict)):
        assert got.dtype == torch.int64
        np.testing.assert_array_equal(got, want)
    one = [torch.from_numpy(a[0]).transpose(-1, -2).contiguous().transpose(-1, -2) for a in arrays]
    for got, want in zip(malis_weights(*one, NHOODS[ndim], unrestrict),
                         malis.malis_weights(*(a[0] for a in arrays), NHOODS[ndim], unrestrict)):
        np.testing.assert_array_equal(got, want)


def test_expressions(rng):
    """In a graph of nodes."""
    nm.model_manager.newmodel(None)
    arrays = case(rng, 3)
    pred, true = (nm.Input(arrays[0].shape, "b,f,z,x,y", dtype=d, print_repr=False) for d in ("float32", "int16"))
    seg = nm.Input(arrays[2].shape, "b,z,x,y", dtype="int64", print_repr=False)
    counts = malis_weights(pred.output, true.output, seg.output, NHOODS[3], unrestrict_neg=True)
    assert counts[0].dtype == "int64" and tuple(counts[0].meta.shape) == arrays[0].shape
    run = nm.graphutils.make_func([n.output for n in (pred, true, seg)], [counts[0], counts[1]])
    for got, want in zip(run(arrays[0], arrays[1].astype("int16"), arrays[2]), wanted(*arrays, NHOODS[3], True)):
        np.testing.assert_array_equal(got, want)


@pytest.mark.gpu
def test_on_the_gpu(rng):
    """Counts come back to where the affinities are."""
    arrays = case(rng, 3)
    tensors = [torch.from_numpy(a).cuda() for a in arrays]
    for got, want in zip(malis_weights(*tensors, NHOODS[3]), wanted(*arrays, NHOODS[3], False)):
        assert got.device == tensors[0].device
        np.testing.assert_array_equal(got.cpu(), want)


def test_either_module_can_be_imported_first():
    for first, second in (("elektronn2.malis.malisop", "elektronn2.neuromancer"),
                          ("elektronn2.neuromancer", "elektronn2.malis.malisop")):
        code = f"import {first}, {second}, sys; print('numba' in sys.modules, elektronn2.malis.malisop.__all__)"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.split() == ["False", "['malis_weights']"]


P, T, S = torch.ones(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.int16), torch.ones(3, 4, dtype=torch.int16)
NEXT = malis.mknhood2d()


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((P[0], T, S, NEXT), ValueError, "aff_pred and aff_gt must have 3 axes .* got 2, 3 and 2"),
    ((P, T[0], S, NEXT), ValueError, "got 3, 2 and 2"),
    ((P, T, S[None], NEXT), ValueError, "seg_gt one less; got 3, 3 and 3"),
    ((P, T, S, NHOODS[3]), ValueError, "With edges along 3 axes, .* must have 4 axes"),
    ((P, T, S, [[1]]), ValueError, "nhood must be integers of shape"),
    ((P, T, S, NEXT * 1.0), ValueError, "nhood must be integers"),
    ((P * torch.nan, T, S, NEXT), ValueError, "aff_pred has 24 NaN"),
    ((P, T, S - 2, NEXT), ValueError, "seg_gt has negative ids"),
    ((P, T, S.float(), NEXT), TypeError, "seg_gt must be integer ids")])
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        malis_weights(*arguments)
