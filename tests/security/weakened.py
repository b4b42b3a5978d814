"""``oci`` with a weakness: weakened.py WEAKNESS [OPTION...] COMMAND... See weaken.py."""

import sys

here = __file__.rpartition("/")[0]
sys.path[:0] = [f"{here}/../../lib", here]
import weaken  # noqa: E402

weakness = sys.argv.pop(1)
getattr(weaken, weakness)()
from ocimk.cli import door  # noqa: E402

door.dispatcher()
