"""Time to import elektronn2.neuromancer against that of torch, each in a new process, alternating.

    python benchmarks/import_time.py [--pairs 9]
"""
import argparse
import statistics
import subprocess
import sys

from common import median_ratio

CODE = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
STATEMENTS = {"torch": "import torch", "elektronn2": "import elektronn2.neuromancer"}


def seconds(statement):
    return float(subprocess.run([sys.executable, "-c", CODE.format(statement)], capture_output=True, text=True,
                                check=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    times = {k: [] for k in STATEMENTS}
    for i in range(pairs + 1):
        for name, statement in STATEMENTS.items():
            t = seconds(statement)
            if i:  # the first pair fills the file cache
                times[name].append(t)
    for name, values in times.items():
        print(f"import {name:<11} {statistics.median(values):.2f} s")
    print(f"ratio {median_ratio(times['elektronn2'], times['torch']):.2f}")


if __name__ == "__main__":
    main()
