"""The command: see the text of the package."""

import argparse
import sys

from . import check, describe


def main(arguments):
    parser = argparse.ArgumentParser(description="Prove a certificate again.")
    for name in ("certificate", "network", "observation"):
        parser.add_argument(name)
    parser.add_argument("--sensing", help="npy file: a mask of bools, or a matrix")
    for name in ("noise", "box", "resolution"):
        parser.add_argument(f"--{name}", type=float, help="what it has to be")
    paths = vars(parser.parse_args(arguments))
    expected = {name: paths.pop(name) for name in ("noise", "box", "resolution")}
    try:
        records = check(**paths, expected=expected)
    except Exception as error:  # whatever goes wrong, nothing is proven
        return f"not proven: {type(error).__name__}: {error}"
    for i, record in enumerate(records):
        sys.stdout.write(f"sample {i}: " + "\n".join(describe(record)) + "\n")
    return 0 if records and all(r["verdict"] != "undecided" for r in records) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
