"""``python -m nnunet_ext VERB``: the command line where no console script is installed."""

import sys

from nnunet_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
