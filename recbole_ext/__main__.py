"""``python -m recbole_ext`` is ``recbole-ext``."""

import sys

from recbole_ext.cli import main

sys.exit(main())
