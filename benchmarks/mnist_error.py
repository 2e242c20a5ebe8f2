"""Error of a trained network (examples/mnist.py) on the 10,000 test digits of MNIST, in %.

    python benchmarks/mnist_error.py MODEL.mdl [PATH]

PATH holds the idx files (default: the cache folder). Required after training the example: below 1.5 %.
"""
import argparse
import logging

import numpy as np

from elektronn2 import neuromancer as nm
from elektronn2.data import MNISTData


def error(model, data):
    """Share of wrong predictions, in %."""
    images, labels = data.getbatch(len(data.test_d), "test")
    probs = np.concatenate([model.predict(part) for part in np.array_split(images, 10)])
    return 100 * np.mean(probs.argmax(1) != labels[:, 0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("path", nargs="?")
    args = parser.parse_args()
    logging.getLogger("elektronn2log").setLevel(logging.WARNING)
    model = nm.model.modelload(args.model)
    data = MNISTData(model.input_node, model.target_node, args.path)
    print(f"{error(model, data):.2f} % of {len(data.test_d)} test digits are wrong ({args.model})")


if __name__ == "__main__":
    main()
