"""The pack: the byte code of what a command loads, in one file, in the order in which it is needed.

Finding, reading and registering a module the interpreter's way costs some 90 microseconds, and create needs eighty of
them. The pack is read once; a command's modules are then run one after the other without asking the import system
(ocimk.cli.door.preload). Written by ``python3 -ISXutf8 PATH/pack.py`` when the tree is built and when it is installed;
without it, or where a source is newer than it says, everything works the ordinary way, only slower. It holds no
docstrings and annotations; built with ``-X no_debug_ranges`` it is smaller still, and tracebacks still name lines.

Format: eight digits, the length of the index; the index, which is marshal of {"magic": the interpreter's, "modules":
{NAME: (SOURCE, MTIME, SIZE, PACKAGE, AT, LENGTH)}, "commands": {COMMAND: [NAME, ...]}}; and the modules' code, without
docstrings, AT bytes after the index.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import subprocess
import sys

LIBRARY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_SMALL = ("ocimk.cli.fast", "ocimk.cli.invocation")

_ROOTFS = ("plan", "options", "work", "root", "mounts", "masks", "devices", "cgroups", "enter")
_CREATE = (
    *("ocimk.runtime.create", "ocimk.runtime.plan", "ocimk.runtime.undo"),
    *("ocimk.stages.validate", "ocimk.spec.rules", "ocimk.stages.state", "ocimk.stages.seccomp"),
    *("ocimk.stages.cgroup", "ocimk.stages.cgroups.create", "ocimk.stages.cgroups.devices"),
    *("ocimk.stages.birth", "ocimk.linux.netlink", "ocimk.stages.mount"),
    *(f"ocimk.stages.rootfs.{name}" for name in _ROOTFS),
    *("ocimk.stages.hooks", "ocimk.stages.sysctl", "ocimk.stages.exec_fifo"),
)
_EXEC = ("ocimk.runtime.exec", "ocimk.runtime.foreground")
_DELETE = ("ocimk.runtime.delete", "ocimk.stages.cgroup", "ocimk.stages.unshare", "ocimk.linux.cgroup_procs")

COMMANDS = {
    "": ("ocimk.cli.fast", "ocimk.cli.invocation"),
    "create": _CREATE,
    "run": _CREATE,
    "start": ("ocimk.runtime.start",),
    "state": ("ocimk.runtime.state",),
    "kill": ("ocimk.runtime.kill",),
    "delete": _DELETE,
    "exec": _EXEC,
    "list": ("ocimk.runtime.list",),
    "ps": ("ocimk.runtime.ps",),
    "pause": ("ocimk.runtime.pause",),
    "resume": ("ocimk.runtime.pause",),
    "update": ("ocimk.runtime.update", "ocimk.stages.cgroups.update"),
    "events": ("ocimk.runtime.events", "ocimk.stages.cgroups.stats"),
    "afterwards": ("ocimk.runtime.run", "ocimk.runtime.foreground", "ocimk.runtime.start", *_DELETE),
}
"""The modules that each command surely loads; those that they import come by themselves. "" is what every command
needs, "afterwards" what run loads while the container's side is at work."""

_ORDER = """
import sys
sys.path.insert(0, {library!r})
from importlib import machinery
found = []
run = machinery.SourceFileLoader.exec_module
def exec_module(self, module):
    run(self, module)
    found.append(module.__name__)
machinery.SourceFileLoader.exec_module = exec_module
for name in {names!r}:
    __import__(name)
print("\\n".join(name for name in found if name.startswith("ocimk.") and name != "ocimk.cli.door"))
"""


def order(names: tuple[str, ...]) -> list[str]:
    """The modules with all that they import, each after those it needs: asked of a fresh interpreter."""
    program = _ORDER.format(library=LIBRARY, names=(*_SMALL, *names))
    done = subprocess.run([sys.executable, "-ISc", program], check=True, capture_output=True, text=True)
    return done.stdout.split()


class Bare(ast.NodeTransformer):
    """Takes out what only readers and type checkers need: annotations and ``if TYPE_CHECKING``."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """A parameter without its type."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function without its result's type."""
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """A plain assignment, or nothing."""
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_If(self, node: ast.If) -> ast.AST:
        """Nothing where it says TYPE_CHECKING."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def entry(name: str) -> tuple[str, int, int, bool, bytes]:
    """One module: where its source is below the library, what it looked like, and its byte code."""
    base = name.replace(".", "/")
    package = os.path.isdir(f"{LIBRARY}/{base}")
    source = f"{base}/__init__.py" if package else f"{base}.py"
    with open(f"{LIBRARY}/{source}", "rb") as file:
        text = file.read()
    status = os.stat(f"{LIBRARY}/{source}")
    bare = ast.fix_missing_locations(Bare().visit(ast.parse(text)))
    code = compile(bare, f"{LIBRARY}/{source}", "exec", optimize=2, dont_inherit=True)
    return source, int(status.st_mtime), status.st_size, package, marshal.dumps(code)


def main() -> int:
    """Write the pack beside the byte code of this folder, in one step."""
    commands = {command: order(names) for command, names in COMMANDS.items()}
    modules: dict[str, tuple[str, int, int, bool, int, int]] = {}
    body = b""
    for name in [name for names in commands.values() for name in names]:
        if name not in modules:
            *facts, code = entry(name)
            modules[name] = (*facts, len(body), len(code))  # type: ignore[assignment]
            body += code
    index = marshal.dumps({"magic": importlib.util.MAGIC_NUMBER, "modules": modules, "commands": commands})
    target = f"{LIBRARY}/ocimk/cli/__pycache__/pack.{sys.implementation.cache_tag}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(f"{target}.new", "wb") as file:
        file.write(b"%08d" % len(index) + index + body)
    os.rename(f"{target}.new", target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
