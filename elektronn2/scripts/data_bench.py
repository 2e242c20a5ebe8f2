"""``elektronn2-data-bench``: how fast the data of a config are loaded, and whether training would wait for them."""
import argparse
import logging
import sys
import tempfile

logger = logging.getLogger("elektronn2log")


def parser():
    p = argparse.ArgumentParser(
        prog="elektronn2-data-bench", description="Measure how fast the data of a config are loaded, stage by stage, and "
        "whether its training would have to wait for them. Nothing is kept of what is trained meanwhile.")
    p.add_argument("config", help="config file (Python)")
    p.add_argument("--workers", type=int, metavar="N", help="default: background_processes of the config, at least 2")
    p.add_argument("--kind", choices=("threads", "processes"), help="of workers (default: background_kind of the config)")
    p.add_argument("--seconds", type=float, default=5, metavar="S", help="of each measurement (default: 5)")
    p.add_argument("--gpu", default="auto", metavar="{auto|none|N}", help="as of elektronn2-train (default: auto)")
    return p


def main(argv=None):
    """Exit status 0, or 2 for wrong arguments, settings or data."""
    args = parser().parse_args(argv)
    from elektronn2.config import config
    from elektronn2.scripts.train import explain
    from elektronn2.training.feeding import measure
    from elektronn2.training.trainer import Trainer
    from elektronn2.training.trainutils import ExperimentConfig
    from elektronn2.utils.gpu import initgpu
    try:
        if not args.seconds > 0 or (args.workers is not None and args.workers < 1):
            raise ValueError("--seconds and --workers must be above 0.")
        initgpu(args.gpu)
        with tempfile.TemporaryDirectory() as folder:
            exp_config = ExperimentConfig(args.config, save_path=folder)
            try:
                workers = args.workers or max(2, int(config.background_processes))
                text = measure(Trainer(exp_config), workers, args.kind or config.background_kind, args.seconds)
            finally:
                exp_config.discard_folder()
    except Exception as error:
        logger.error("%s", explain(error, args.config))
        return 2
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
