"""Networks as graphs of nodes: symbolic expressions, compiled into functions when first called."""
from elektronn2.neuromancer import (
                                    computations,
                                    graphmanager,
                                    graphutils,
                                    loss,
                                    model,
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
from elektronn2.neuromancer.resampling import Crop, FragmentsToDense, Pad, Pool, Upsample
from elektronn2.neuromancer.residual import Activation, ResidualAdd, SqueezeExcitation
from elektronn2.neuromancer.variables import ConstantParam, VariableParam, VariableWeight, initweights
from elektronn2.neuromancer.various import Reshape

__all__ = ["GRU", "LSTM", "AbsLoss", "Activation", "Add", "Affinities", "AffinityLoss", "AggregateLoss", "ApplyFunc",
           "AutoMerge", "BetaNLL", "BinaryNLL", "BlockedMultinoulliNLL", "BoundaryLoss", "Concat", "ConstantParam", "Conv",
           "Crop", "DiceCELoss", "DiceLoss", "Dot", "Errors", "EuclideanDistance", "FocalLoss", "FragmentsToDense",
           "FromTensor", "GaussianNLL", "GroupNorm", "InitialState_like", "Input", "Input_like", "InstanceNorm",
           "LayerNorm", "LovaszSoftmax", "MultMerge", "MultinoulliNLL", "Node", "OneHot", "Pad", "Perceptron", "Pool",
           "RampLoss", "Reshape", "ResidualAdd", "SignedDistance", "SobelizedLoss", "Softmax", "SquaredLoss",
           "SqueezeExcitation", "TverskyLoss", "UpConv", "UpConvMerge", "Upsample", "ValueNode", "VariableParam",
           "VariableWeight", "computations", "graphmanager", "graphutils", "initweights", "loss", "model", "model_manager",
           "neural", "node_basic", "optimiser", "split", "variables", "various"]
