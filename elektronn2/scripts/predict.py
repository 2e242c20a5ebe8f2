"""``elektronn2-predict``: predict a volume densely."""
import argparse
import logging
import sys
from pathlib import Path

from elektronn2.scripts.command import exit_status

logger = logging.getLogger("elektronn2log")


def parser():
    p = argparse.ArgumentParser(
        prog="elektronn2-predict", description="Predict a volume densely with a trained model: the value of every output "
        "channel at every voxel.")
    p.add_argument("model", help="model file (.mdl)")
    p.add_argument("input", help="volume, such as raw.h5:raw, em.zarr/0, precomputed://https://host/em, or 'stack/*.tif'")
    p.add_argument("output", metavar="OUTPUT[:key]", help="h5 file to write, axes (f, z, x, y); default key: prediction")
    p.add_argument("--gpu", default="auto", metavar="{auto|none|N}", help="where to compute (default: auto)")
    p.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32",
                   help="bfloat16 is faster where the processor has it")
    p.add_argument("--patch", metavar="Z,X,Y", help="size of the tiles that are predicted at once (default: as trained; "
                   "larger is faster and needs more memory)")
    p.add_argument("--no-mfp", action="store_true", help="shift the network over its pooling grid instead of max-fragment "
                   "pooling: slower")
    p.add_argument("--classes", metavar="C[,C]", help="output channels to write (default: all)")
    p.add_argument("--uint8", action="store_true", help="write 255 times the value")
    p.add_argument("--no-pad", action="store_true", help="leave out the border that the field of view reaches beyond, "
                   "instead of mirroring the volume there")
    p.add_argument("--nodes", metavar="FILE.py", help="Python file, which is executed, with the node classes of your own "
                   "that the model has")
    p.add_argument("--overwrite", action="store_true", help="replace an existing output file as a whole")
    return p


def split_key(text, default=None):
    """('volume.h5', 'volumes/raw') from 'volume.h5:volumes/raw'; a colon within the path is left alone."""
    path, colon, key = text.rpartition(":")
    if not colon or len(path) == 1 or Path(text).exists() or Path(key).suffix in (".h5", ".hdf5", ".hdf"):
        return text, default
    return path, key or default


def numbers(text, what):
    try:
        return [int(n) for n in text.split(",")]
    except ValueError:
        raise ValueError(f"{what} must be whole numbers with commas between, got {text!r}.") from None


def predict(args):
    import h5py

    from elektronn2 import neuromancer as nm
    from elektronn2.config import config
    from elektronn2.data.volumes import Address, open_volume
    from elektronn2.utils.basic import atomic_write, import_file
    from elektronn2.utils.gpu import initgpu
    if Path(args.input).suffix == ".mdl":
        raise ValueError(f"{args.input} is a model, not a volume. The order is: elektronn2-predict MODEL INPUT OUTPUT")
    source = Address.parse(args.input).local
    target, out_key = split_key(args.output, "prediction")
    target = Path(target).expanduser()
    if target.suffix.lower() in (".tif", ".tiff", ".npy", ".zarr", ".n5", ".png"):
        raise ValueError(f"{target}: the output is an h5 file; give it the suffix .h5.")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file for the output, as in {target / 'prediction.h5'}.")
    if source is not None and target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"Output and input are the same file, {target}. Name another file for the output.")
    if target.exists() and not args.overwrite:
        raise FileExistsError(f"{target} exists. Choose another file, or --overwrite.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent} for the output.")
    initgpu(args.gpu)
    config.precision = args.precision
    if args.nodes:
        import_file(Path(args.nodes).expanduser())  # which registers the classes
    volume = open_volume(args.input)
    with atomic_write(target) as temporary:  # which fails now, not after hours, if it must
        model = load(nm, args, volume.shape[1:])
        node = model.prediction_node
        classes = numbers(args.classes, "--classes") if args.classes else list(range(node.shape["f"]))
        if any(not 0 <= c < node.shape["f"] for c in classes):
            raise ValueError(f"--classes {args.classes}: the model has the channels 0 to {node.shape['f'] - 1}.")
        prediction = node.predict_dense(volume, as_uint8=args.uint8, pad_raw=not args.no_pad)
        volume.close()
        prediction = prediction[classes] if args.classes else prediction
        with h5py.File(temporary, "w") as out:
            out.create_dataset(out_key, data=prediction, compression="lzf")
    logger.info("Wrote %s:%s, %s %s", target, out_key, prediction.shape, prediction.dtype)


def load(nm, args, size):
    """The model, rebuilt for one tile of a volume of that size (z, x, y) at a time, with max-fragment pooling where the
    network has any to do."""
    model = nm.model.modelload(args.model)
    patch = dict(imposed_patch_size=tile(numbers(args.patch, "--patch"), size, model, args)) if args.patch else {}
    pools = [n for n in model.nodes.values() if set(getattr(n, "pool_shape", (1,))) != {1}]
    mfp = bool(pools) and not any(n.upsamples for n in model.nodes.values()) and not args.no_mfp
    return nm.model.modelload(args.model, imposed_batch_size=1, override_mfp_to_active=mfp, **patch)


def tile(patch, size, model, args):
    """The patch, no larger than the volume with its mirrored border."""
    shape = model.prediction_node.shape
    if len(patch) != shape.ndim:
        return patch  # which rebuilding refuses
    most = [n if args.no_pad else n + fov - 1 for n, fov in zip(size[-shape.ndim:], shape.fov)]
    if any(p > m for p, m in zip(patch, most)):
        logger.info("--patch %s is larger than the volume; there it is cut to %s.", args.patch, most)
    return [min(p, m) for p, m in zip(patch, most)]


def main(argv=None):
    return exit_status(predict, parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
