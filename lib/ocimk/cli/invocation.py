"""One call of ``oci``, understood: what a command's handler is given."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Value = bool | str | list[str]
    Values = dict[str, Value]


class Invocation:
    """A command line taken apart. ``options`` and ``globals`` hold only what was given, by long name without dashes."""

    __slots__ = ("args", "command", "globals", "meanwhile", "options", "root", "search")

    def __init__(self, command: str, options: Values, args: list[str], root: str, settings: Values) -> None:
        self.command = command
        self.options = options
        self.args = args
        """What is not an option, in order; the number of arguments was checked."""
        self.root = root
        """Where the containers' folders are: absolute, clean, not ``/``. It need not be there."""
        self.globals = settings
        self.meanwhile: Callable[[], None] | None = None
        """What the command would rather do while it has to wait for another process."""
        self.search: list[str] = []
        """Absolute folders in which stages and commands are looked for before the stock ones."""

    def flag(self, name: str) -> bool:
        """Whether the flag was given (and not as ``--name=false``)."""
        return self.options.get(name, False) is True

    def text(self, name: str, default: str = "") -> str:
        """The value of an option that takes one."""
        return str(self.options.get(name, default))

    def number(self, name: str, default: int = 0) -> int:
        """The value of an option that takes a whole number (the parser has checked that it is one)."""
        return int(str(self.options.get(name, default)), 0)

    def many(self, name: str) -> list[str]:
        """All values of an option that may be repeated, in order."""
        value = self.options.get(name, [])
        return value if isinstance(value, list) else [str(value)]

    def given(self, name: str) -> bool:
        """Whether the option was on the command line at all."""
        return name in self.options

    @property
    def exec_stages(self) -> bool:
        """Whether each stage is to be executed instead of called."""
        return self.globals.get("exec-stages", False) is True

    @property
    def trace(self) -> str:
        """The file that records the stages, or ""."""
        return str(self.globals.get("trace", ""))

    @property
    def cgroup_manager(self) -> str:
        """``cgroupfs``, ``systemd`` or ``disabled``."""
        chosen = str(self.globals.get("cgroup-manager", ""))
        return chosen or ("systemd" if self.globals.get("systemd-cgroup") else "cgroupfs")

    @property
    def rootless(self) -> bool:
        """Whether a cgroup may be done without when it is not permitted: as ``--rootless`` says, else as we are found.

        Raises Error when the option's value is none of true, false and auto.
        """
        from . import rootless

        return rootless.chosen(str(self.globals.get("rootless", "auto")))

    @property
    def root_given(self) -> bool:
        """Whether ``--root`` was on the command line: a missing one is then worth an error."""
        return "root" in self.globals
