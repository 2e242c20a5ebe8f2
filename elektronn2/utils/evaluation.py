"""How well a probability map agrees with binary labels."""
import numpy as np
from scipy.stats import rankdata


def roc_auc(labels, scores):
    """Area under the receiver operating characteristic, ties counted half; nan if a class is missing.

    Source: the Mann-Whitney statistic, Hanley and McNeil 1982.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    labels, ranks = np.ravel(labels).astype(bool), rankdata(np.ravel(scores))
    n_pos = int(labels.sum())
    n_neg = labels.size - n_pos
    if not n_pos or not n_neg:
        return float("nan")
    return float((ranks[labels].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))
