"""``elektronn2-convert``: model files of the first ELEKTRONN2 to files that this library reads without converting."""
import argparse
import logging
import sys
from pathlib import Path

from elektronn2.scripts.command import exit_status

logger = logging.getLogger("elektronn2log")


def parser():
    p = argparse.ArgumentParser(
        prog="elektronn2-convert", description="Convert a model file (.mdl) of the first ELEKTRONN2, which is a pickle. "
        "Nothing that the file may contain is executed, and the old file stays as it is.")
    p.add_argument("old", help="model file of the first ELEKTRONN2")
    p.add_argument("new", help="model file to write")
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    p.add_argument("--allow-functions", action="store_true", help="import the functions that the file's ApplyFunc nodes "
                   "name (only for files that you trust)")
    return p


def convert(args):
    from elektronn2.neuromancer import legacy, serialize
    from elektronn2.neuromancer.model import modelload
    from elektronn2.utils.basic import atomic_write
    old, new = Path(args.old).expanduser(), Path(args.new).expanduser()
    if not serialize.is_old(old):
        raise ValueError(f"{old} is no file of the first ELEKTRONN2; files of this library need no conversion.")
    if new.is_dir():
        raise IsADirectoryError(f"{new} is a folder; name a file, as in {new / old.name}.")
    if new.exists() and new.samefile(old):
        raise ValueError(f"Old and new file are the same, {old}. Name another file, so that the old one is kept.")
    if new.exists() and not args.overwrite:
        raise FileExistsError(f"{new} exists. Choose another file, or --overwrite.")
    description, tensors = legacy.load(old, args.allow_functions)
    with atomic_write(new) as temporary:
        serialize.write(description, tensors, temporary)
        model = modelload(temporary, allow_functions=args.allow_functions)
        check_equal(serialize.describe(model), (description, tensors), new)
    count = sum(p.size for p in model.get_param_values(as_list=True))
    logger.info("Converted %s to %s: %d nodes, %s parameters. The new file was read again and holds the same.", old, new,
                len(model), f"{count:,}")


def check_equal(found, wanted, path):
    """Compare two models, each as (description, tensors): nodes, roles and numbers. OSError if they differ."""
    import numpy as np

    def graph(description):
        return [(n["name"], n["class"]) for n in description["nodes"]], description["designations"]
    if graph(found[0]) != graph(wanted[0]) or found[1].keys() != wanted[1].keys() or not all(
            np.array_equal(found[1][k], wanted[1][k], equal_nan=True) for k in wanted[1]):
        raise OSError(f"{path} was not written, as what was read again differs from what was converted.")


def main(argv=None):
    return exit_status(convert, parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
