"""Writes an AppArmor label as the waiting image does, with a file mounted over where it belongs: label.py WEAKNESS FILE"""

import os
import sys

here = __file__.rpartition("/")[0]
sys.path[:0] = [f"{here}/../../lib", here]
import weaken  # noqa: E402

weaken.apply(sys.argv[1])
from ocimk.native import image  # noqa: E402
from ocimk.stages import lsm  # noqa: E402

lsm.apparmor = lambda: True
folder, _ = lsm._open(("/proc/self/attr",), "label")
assert os.system(f"mount --bind {sys.argv[2]} /proc/{os.getpid()}/attr/exec") == 0
plan = image.Plan()
lsm._write(plan, {"apparmorProfile": "profile"}, folder)
os.set_inheritable(folder, True)
os.execve(image.seal(image.load(), plan.memory(2)), ["image"], {})
