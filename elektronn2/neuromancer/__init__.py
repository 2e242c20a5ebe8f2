"""Networks as graphs of nodes: symbolic expressions, compiled into functions when first called."""
from elektronn2.neuromancer import (
    computations,
    graphmanager,
    graphutils,
    loss,
    model,
    networks,
    neural,
    node_basic,
    optimiser,
    variables,
    various,
)
from elektronn2.neuromancer.loss import (
    AbsLoss,
    Affinities,
    AffinityLoss,
    AggregateLoss,
    BetaNLL,
    BinaryNLL,
    BlockedMultinoulliNLL,
    BoundaryLoss,
    DiceCELoss,
    DiceLoss,
    Errors,
    EuclideanDistance,
    FocalLoss,
    GaussianNLL,
    LovaszSoftmax,
    MalisNLL,
    MultinoulliNLL,
    OneHot,
    RampLoss,
    SignedDistance,
    SobelizedLoss,
    Softmax,
    SquaredLoss,
    TverskyLoss,
)
from elektronn2.neuromancer.manager import model_manager
from elektronn2.neuromancer.neural import GRU, LSTM, AutoMerge, Conv, Dot, Perceptron, UpConv, UpConvMerge
from elektronn2.neuromancer.node_basic import (
    Add,
    ApplyFunc,
    Concat,
    FromTensor,
    InitialState_like,
    Input,
    Input_like,
    MultMerge,
    Node,
    ValueNode,
    split,
)
from elektronn2.neuromancer.normalisation import GroupNorm, InstanceNorm, LayerNorm
from elektronn2.neuromancer.registry import LEFT_OUT as _LEFT_OUT
from elektronn2.neuromancer.registry import NODES as _NODES
from elektronn2.neuromancer.registry import why_left_out as _why_left_out
from elektronn2.neuromancer.resampling import Crop, FragmentsToDense, Pad, Pool, Upsample
from elektronn2.neuromancer.residual import Activation, ResidualAdd, SqueezeExcitation
from elektronn2.neuromancer.torch_module import TorchModule, from_torch
from elektronn2.neuromancer.variables import ConstantParam, VariableParam, VariableWeight, initweights
from elektronn2.neuromancer.various import LRN, FaithlessMerge, GaussianAEVBPrior, GaussianRV, Reshape, Scan
from elektronn2.utils.validate import suggest as _suggest

__all__ = [
    "GRU", "LRN", "LSTM", "AbsLoss", "Activation", "Add", "Affinities", "AffinityLoss", "AggregateLoss", "ApplyFunc",
    "AutoMerge", "BetaNLL", "BinaryNLL", "BlockedMultinoulliNLL", "BoundaryLoss", "Concat", "ConstantParam", "Conv",
    "Crop", "DiceCELoss", "DiceLoss", "Dot", "Errors", "EuclideanDistance", "FaithlessMerge", "FocalLoss",
    "FragmentsToDense", "FromTensor", "GaussianAEVBPrior", "GaussianNLL", "GaussianRV", "GroupNorm",
    "InitialState_like", "Input", "Input_like", "InstanceNorm", "LayerNorm", "LovaszSoftmax", "MalisNLL", "MultMerge",
    "MultinoulliNLL", "Node", "OneHot", "Pad", "Perceptron", "Pool", "RampLoss", "Reshape", "ResidualAdd", "Scan",
    "SignedDistance", "SobelizedLoss", "Softmax", "SquaredLoss", "SqueezeExcitation", "TorchModule", "TverskyLoss",
    "UpConv", "UpConvMerge", "Upsample", "ValueNode", "VariableParam", "VariableWeight", "computations", "from_torch",
    "graphmanager", "graphutils", "initweights", "loss", "model", "model_manager", "networks", "neural", "node_basic",
    "optimiser", "split", "variables", "various",
]


def __getattr__(name):
    if name in _LEFT_OUT:
        raise AttributeError(_why_left_out(name))
    if name in model.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it is in its module 'model': nm.model.{name}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{_suggest(name, _NODES)}")
