"""RecBole's way of starting a run: ``python run_recbole_ext.py --model=M --dataset=D --key=V``."""

import sys

from recbole_ext.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
