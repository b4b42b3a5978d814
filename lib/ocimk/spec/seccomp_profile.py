"""linux.seccomp of config.json, checked and in numbers. Source: config-linux.md, "Seccomp";
seccomp_rule_add(3)."""

from __future__ import annotations

from ..errors import Error
from ..linux.seccomp import ACTIONS, AUDIT_ARCH, FLAGS, MAX_ERRNO, OPERATORS, RET_DATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Condition = tuple[int, int, int, int]  # argument's index, operator, value, second value

WHERE = "linux.seccomp"
EPERM = 1

# The actions that carry a number for the caller, and the highest that fits.
_CARRIES = {"SCMP_ACT_ERRNO": MAX_ERRNO, "SCMP_ACT_TRACE": RET_DATA}

# runc's rule for when the -ENOSYS stub is left out: what is not named is let through, or is a tracer's
# business.
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")


class Rule:
    """One entry of linux.seccomp.syscalls: for these names, where the conditions hold, this action."""

    __slots__ = ("action", "action_name", "alternatives", "names", "where")

    def __init__(self, where: str, names: list[str], action_name: str, action: int, conditions: list[Condition]):
        self.where = where
        self.names = names
        self.action_name = action_name
        self.action = action
        self.alternatives = alternatives(conditions)
        """Lists of conditions; one list must hold as a whole. [[]] is a rule without conditions."""


class Profile:
    """linux.seccomp as a whole. Raises Error, naming the property, on what the spec or the kernel does not
    allow."""

    __slots__ = (
        "action",
        "action_name",
        "architectures",
        "flags",
        "listener_metadata",
        "listener_path",
        "rules",
    )

    def __init__(self, seccomp: dict[str, Any]) -> None:
        self.action_name, self.action = _action(seccomp, "defaultAction", "defaultErrnoRet", WHERE)
        if self.action_name == "SCMP_ACT_NOTIFY":
            raise Error(
                f"{WHERE}.defaultAction",
                "SCMP_ACT_NOTIFY cannot be the default: nobody could start the agent",
            )
        self.architectures = _known(seccomp, "architectures", AUDIT_ARCH)
        self.flags = _flags(seccomp)
        self.rules = [
            _rule(entry, f"{WHERE}.syscalls[{i}]") for i, entry in enumerate(_list(seccomp, "syscalls", WHERE))
        ]
        self.listener_path = _text(seccomp, "listenerPath")
        self.listener_metadata = _text(seccomp, "listenerMetadata")
        self._check_listener()

    def _check_listener(self) -> None:
        if self.listener_metadata and not self.listener_path:
            raise Error(f"{WHERE}.listenerMetadata", "listenerPath must be set too")
        if not self.notifies:
            return
        if not self.listener_path:
            raise Error(f"{WHERE}.listenerPath", "SCMP_ACT_NOTIFY needs it: without an agent the container would hang")
        for rule in self.rules:
            if rule.action_name == "SCMP_ACT_NOTIFY" and "write" in rule.names:
                hint = "the container's first process writes before an agent listens"
                raise Error(f"{rule.where}.names", "SCMP_ACT_NOTIFY cannot be used for write", hint)

    @property
    def notifies(self) -> bool:
        """Whether a rule hands system calls to an agent."""
        return any(rule.action_name == "SCMP_ACT_NOTIFY" for rule in self.rules)

    @property
    def permissive(self) -> bool:
        """Whether what no rule names is let through."""
        return self.action_name in PERMISSIVE

    def named(self) -> Iterator[tuple[Rule, str]]:
        """Every name with its rule, in the order of the profile."""
        return ((rule, name) for rule in self.rules for name in rule.names)


def of(config: dict[str, Any]) -> dict[str, Any] | None:
    """linux.seccomp, or None when there is none or nothing is in it (runc and its callers take that as
    "off")."""
    linux = config.get("linux") or {}
    seccomp = linux.get("seccomp")
    if seccomp is None:
        return None
    if not isinstance(seccomp, dict):
        raise Error(WHERE, "an object is required")
    return seccomp if seccomp.get("defaultAction") or seccomp.get("syscalls") else None


def alternatives(conditions: list[Condition]) -> list[list[Condition]]:
    """All conditions must hold, but when two look at the same argument each one is a rule of its own.

    libseccomp cannot check an argument twice in one rule, and old profiles mean "or" by it; this is runc's
    reading."""
    indices = {condition[0] for condition in conditions}
    if len(indices) == len(conditions):
        return [conditions]
    return [[condition] for condition in conditions]


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict):
        raise Error(where, "an object is required")
    names = _list(entry, "names", where)
    if not names:
        raise Error(f"{where}.names", "at least one system call must be named")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise Error(f"{where}.names[{i}]", "the name of a system call is required")
    action_name, action = _action(entry, "action", "errnoRet", where)
    conditions = [_condition(arg, f"{where}.args[{i}]") for i, arg in enumerate(_list(entry, "args", where))]
    return Rule(where, names, action_name, action, conditions)


def _action(holder: dict[str, Any], name_key: str, errno_key: str, where: str) -> tuple[str, int]:
    name = holder.get(name_key)
    if not isinstance(name, str) or name not in ACTIONS:
        known = " ".join(ACTIONS)
        raise Error(f"{where}.{name_key}", f"{name!r} is not an action" if name else "an action is required", known)
    highest = _CARRIES.get(name)
    number = holder.get(errno_key)
    if highest is None:
        if number is not None:
            raise Error(f"{where}.{errno_key}", f"{name} carries no errno", "leave it out, or use SCMP_ACT_ERRNO")
        return name, ACTIONS[name]
    number = EPERM if number is None else _unsigned(number, f"{where}.{errno_key}", highest)
    return name, ACTIONS[name] | number


def _condition(arg: Any, where: str) -> Condition:
    if not isinstance(arg, dict):
        raise Error(where, "an object is required")
    operator = arg.get("op")
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise Error(f"{where}.op", f"{operator!r} is not an operator", " ".join(OPERATORS))
    index = _unsigned(arg.get("index"), f"{where}.index", 5)
    value = _unsigned(arg.get("value"), f"{where}.value", 2**64 - 1)
    second = _unsigned(arg.get("valueTwo") or 0, f"{where}.valueTwo", 2**64 - 1)
    return index, OPERATORS[operator], value, second if operator == "SCMP_CMP_MASKED_EQ" else 0


def _flags(seccomp: dict[str, Any]) -> list[str] | None:
    """The flags by name; None when the property is absent, which is not the same as an empty list."""
    return None if seccomp.get("flags") is None else _known(seccomp, "flags", FLAGS)


def _known(seccomp: dict[str, Any], key: str, known: dict[str, int]) -> list[str]:
    words = _list(seccomp, key, WHERE)
    for i, word in enumerate(words):
        if not isinstance(word, str) or word not in known:
            raise Error(f"{WHERE}.{key}[{i}]", f"{word!r} is not known", " ".join(known))
    return words


def _list(holder: dict[str, Any], key: str, where: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Error(f"{where}.{key}", "a list is required")
    return value


def _text(seccomp: dict[str, Any], key: str) -> str:
    value = seccomp.get(key)
    if value is not None and not isinstance(value, str):
        raise Error(f"{WHERE}.{key}", "a string is required")
    return value or ""


def _unsigned(value: Any, where: str, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise Error(where, f"{value!r} is not a whole number from 0 to {highest}")
    return value


# ---- in words ----------------------------------------------------------------------------------------------

_SIGNS = {1: "!=", 2: "<", 3: "<=", 4: "==", 5: ">=", 6: ">"}

_WORDS = {
    "SCMP_ACT_KILL": "kill the thread",
    "SCMP_ACT_KILL_THREAD": "kill the thread",
    "SCMP_ACT_KILL_PROCESS": "kill the process",
    "SCMP_ACT_TRAP": "send SIGSYS",
    "SCMP_ACT_NOTIFY": "ask the agent",
    "SCMP_ACT_LOG": "log and allow",
    "SCMP_ACT_ALLOW": "allow",
}


def action_words(action: int) -> str:
    """What an action (with its data) does, in a few words."""
    import errno

    data = action & RET_DATA
    if action & ~RET_DATA == ACTIONS["SCMP_ACT_ERRNO"]:
        return f"fail with {errno.errorcode.get(data, 'errno')} ({data})"
    if action & ~RET_DATA == ACTIONS["SCMP_ACT_TRACE"]:
        return f"ask the tracer (message {data}; ENOSYS without one)"
    name = next(name for name, number in ACTIONS.items() if number == action & ~RET_DATA)
    return _WORDS[name]


def condition_words(condition: Condition) -> str:
    """One condition as C would write it."""
    index, operator, value, second = condition
    if operator == OPERATORS["SCMP_CMP_MASKED_EQ"]:
        return f"arg{index} & {value:#x} == {second:#x}"
    return f"arg{index} {_SIGNS[operator]} {value:#x}"


def rule_words(rule: Rule) -> str:
    """When a rule holds: "" or " if arg0 == 0x1 or arg0 == 0x2"."""
    texts = [" and ".join(condition_words(c) for c in alternative) for alternative in rule.alternatives]
    text = " or ".join(text for text in texts if text)
    return f" if {text}" if text else ""


def holds(condition: Condition, args: list[int]) -> bool:
    """Whether the condition is true of these arguments; those not given are 0."""
    index, operator, value, second = condition
    given = args[index] if index < len(args) else 0
    if operator == OPERATORS["SCMP_CMP_MASKED_EQ"]:
        return given & value == second
    signs = [given != value, given < value, given <= value, given == value, given >= value, given > value]
    return signs[operator - 1]


def matches(rule: Rule, args: list[int]) -> bool:
    """Whether one of the rule's alternatives holds for these arguments."""
    return any(all(holds(condition, args) for condition in alternative) for alternative in rule.alternatives)
