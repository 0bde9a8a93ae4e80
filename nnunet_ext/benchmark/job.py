"""The worker by its former name, which workflows run that an earlier version has written (``plan --snakefile``)."""

import sys

from nnunet_ext.benchmark.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
