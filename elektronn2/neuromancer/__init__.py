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
)
from elektronn2.neuromancer.loss import AggregateLoss, Errors, MultinoulliNLL, Softmax
from elektronn2.neuromancer.manager import model_manager
from elektronn2.neuromancer.neural import (
                                    AutoMerge,
                                    Conv,
                                    Crop,
                                    Dot,
                                    FragmentsToDense,
                                    Pad,
                                    Perceptron,
                                    Pool,
                                    UpConv,
                                    UpConvMerge,
)
from elektronn2.neuromancer.node_basic import Add, ApplyFunc, Concat, Input, Input_like, Node
from elektronn2.neuromancer.variables import ConstantParam, VariableParam, VariableWeight, initweights

__all__ = ["Add", "AggregateLoss", "ApplyFunc", "AutoMerge", "Concat", "ConstantParam", "Conv", "Crop", "Dot", "Errors",
           "FragmentsToDense", "Input", "Input_like", "MultinoulliNLL", "Node", "Pad", "Perceptron", "Pool", "Softmax",
           "UpConv", "UpConvMerge", "VariableParam", "VariableWeight", "computations", "graphmanager", "graphutils",
           "initweights", "loss", "model", "model_manager", "neural", "node_basic", "optimiser", "variables"]
