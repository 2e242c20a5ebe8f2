"""``elektronn2-convert-data``: a volume to another format, dtype or resolution."""
import argparse
import logging
import sys

from elektronn2.scripts.command import exit_status

logger = logging.getLogger("elektronn2log")


def parser():
    p = argparse.ArgumentParser(
        prog="elektronn2-convert-data", description="Write a volume to another format, dtype or resolution, block by block, "
        "so that it may be larger than memory. If it is interrupted, the same command goes on.")
    p.add_argument("input", help="volume, such as raw.h5:raw, em.zarr/0, s3://bucket/em.zarr/0, em.n5/raw, "
                   "precomputed://https://host/em, 'stack/*.tif', raw.npy, knossos:FOLDER")
    p.add_argument("output", help="*.zarr, *.h5[:key], *.npy, *.tif, or precomputed:FOLDER")
    p.add_argument("--axes", help="axes of the input as stored, such as zyx or xyzf, if it does not say so itself")
    p.add_argument("--chunks", type=integers, metavar="Z,X,Y", help="shape of what is read at once (default: 64,64,64)")
    p.add_argument("--shards", type=integers, metavar="Z,X,Y", help="shape of the files of a Zarr (default: 256 each)")
    p.add_argument("--dtype", help="of the output; images are scaled, so that 65535 of uint16 becomes 255 of uint8")
    p.add_argument("--range", type=floats, metavar="LOW,HIGH",
                   help="values of the input that become 0 and the largest value")
    p.add_argument("--downsample", type=integers, default=(1, 1, 1), metavar="Z,X,Y", help="voxels that become one: their "
                   "mean, or with --labels the most frequent; one number is for all axes, here and above")
    p.add_argument("--labels", action="store_true", help="the volume holds labels: numbers stay as they are")
    p.add_argument("--voxel-size", type=floats, metavar="Z,X,Y", help="of the input in nm, if it does not say so itself")
    p.add_argument("--memory", type=float, default=256, metavar="MIB", help="size of a block (default: 256)")
    p.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return p


def integers(text):
    numbers = tuple(int(n) for n in text.split(","))
    return numbers if len(numbers) > 1 else numbers[0]


def floats(text):
    return tuple(float(n) for n in text.split(","))


def work(args):
    from elektronn2.data.volumes import convert
    convert(args.input, args.output, args.chunks, args.shards, args.dtype, args.range, args.downsample, args.labels,
            args.axes, args.voxel_size, args.memory, args.overwrite)


def main(argv=None):
    try:
        return exit_status(work, parser().parse_args(argv))
    except KeyboardInterrupt:
        logger.error("Interrupted. The same command goes on where this one stopped.")
        return 1


if __name__ == "__main__":
    sys.exit(main())
