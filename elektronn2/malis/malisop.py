"""MALIS weights in networks: of tensors, or as an expression of the graph."""
import numpy as np
import torch

from elektronn2 import malis
from elektronn2.neuromancer.expression import op

__all__ = ["malis_weights"]


def malis_weights(aff_pred, aff_gt, seg_gt, nhood, unrestrict_neg=False):
    """How many pairs of voxels depend on each edge of a predicted affinity graph: (pos, neg) int64 like ``aff_pred``.

    The same as :func:`elektronn2.malis.malis_weights` for tensors or expressions, with or without examples of a batch:
    ``aff_pred``, ``aff_gt`` ([b,] e, *spatial), ``seg_gt`` ([b,] *spatial), two or three spatial axes, as many as ``nhood``
    (e, n) has. Computed on the CPU, wherever the tensors are; as counts they have no gradient. ValueError for ranks that
    do not fit, and whatever the other function raises.

    >>> from elektronn2.malis.malisop import malis_weights
    >>> aff, seg = torch.tensor([[[.9, .2, .6, 0]]]), torch.tensor([[1, 1, 2, 2]])
    >>> pos, neg = malis_weights(aff, torch.tensor([[[1, 0, 1, 0]]]), seg, [(0, 1)])
    >>> pos.tolist(), neg.tolist()
    ([[[1, 0, 1, 0]]], [[[0, 4, 0, 0]]])
    """
    edges = np.asarray(nhood)
    if edges.ndim != 2 or edges.shape[1] not in (2, 3) or edges.dtype.kind not in "iu":
        raise ValueError(f"nhood must be integers of shape (edges, 2) or (edges, 3), got {nhood!r}.")
    return _weights(aff_pred, aff_gt, seg_gt, edges.ravel().tolist(), edges.shape[1], bool(unrestrict_neg))


@op
def _weights(aff_pred, aff_gt, seg_gt, nhood, n, unrestrict_neg):
    """``nhood`` is flat, as torch has no lists of lists."""
    if aff_pred.ndim not in (n + 1, n + 2) or aff_gt.ndim != aff_pred.ndim or seg_gt.ndim != aff_pred.ndim - 1:
        raise ValueError(f"With edges along {n} axes, aff_pred and aff_gt must have {n + 1} axes (edge and space), or "
                         f"{n + 2} with the batch, and seg_gt one less; got {aff_pred.ndim}, {aff_gt.ndim} and "
                         f"{seg_gt.ndim}.")
    return _counts(aff_pred.detach(), aff_gt, seg_gt, nhood, n, unrestrict_neg)


@torch.library.custom_op("elektronn2::malis_weights", mutates_args=())
def _counts(aff_pred: torch.Tensor, aff_gt: torch.Tensor, seg_gt: torch.Tensor, nhood: list[int], n: int,
            unrestrict_neg: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """One step for torch.compile, which cannot look into it."""
    edges = np.reshape(nhood, (-1, n))
    pred, true, seg = (v.reshape(-1, *v.shape[-k:]).cpu().numpy() for v, k in ((aff_pred.float(), n + 1), (aff_gt, n + 1),
                                                                               (seg_gt, n)))
    counts = zip(*(malis.malis_weights(*example, edges, unrestrict_neg) for example in zip(pred, true, seg)))
    pos, neg = (torch.stack([torch.from_numpy(c.astype(np.int64)) for c in examples]) for examples in counts)
    return tuple(c.reshape(aff_pred.shape).to(aff_pred.device) for c in (pos, neg))


@_counts.register_fake
def _(aff_pred, aff_gt, seg_gt, nhood, n, unrestrict_neg):
    return tuple(torch.empty_like(aff_pred, dtype=torch.int64, memory_format=torch.contiguous_format) for _ in range(2))
