"""The process of one run of a comparison: its settings come as JSON on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recbole_ext.quick_start import run
from recbole_ext.types import UserError


def main() -> int:
    """Start the run, or continue it where its folder has been begun."""
    wanted = json.load(sys.stdin)
    try:
        if (Path(wanted["folder"]) / "config.yaml").is_file():
            run(resume=wanted["folder"])
        else:
            settings = {**wanted["settings"], "output_dir": wanted["folder"]}
            run(wanted["model"], wanted["dataset"], None, settings, wanted["overrides"])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
