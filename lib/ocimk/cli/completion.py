"""Completion scripts for bash, zsh and fish, written from the table when ocimk is installed.

The scripts hold all names; only the IDs of containers are asked for when they are needed (``oci list --quiet``).
"""

from __future__ import annotations

import sys

from . import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .table import Option

SHELLS = ("bash", "zsh", "fish")


def main(argv: list[str]) -> int:
    """Print the script for the shell named; 2 when it is none of them."""
    if len(argv) != 1 or argv[0] not in SHELLS:
        sys.stderr.write(f"usage: completion {'|'.join(SHELLS)}\n")
        return 2
    sys.stdout.write(script(argv[0]))
    return 0


def script(shell: str) -> str:
    """The completion script of one shell."""
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell]()


def shown(command: str) -> list[Option]:
    """The options that help shows, with help itself and, for oci, the version."""
    last = (table.HELP,) if command else (table.HELP, table.VERSION)
    return [row for row in (*table.rows(command), *last) if row[4]]


def names(row: Option) -> list[str]:
    """An option as it may be typed: long, then short."""
    return [table.dashed(name) for name in row[:2] if name]


def takes_id(command: str) -> bool:
    """Whether the first argument is the ID of a container that is there already."""
    return table.COMMANDS[command][1].startswith("ID") and command not in ("create", "run", "restore")


def kind(row: Option) -> str:
    """How an option's value is completed: words of a choice, ``dir``, ``file``, or nothing."""
    metavar = row[3]
    if "|" in metavar:
        return metavar.replace("|", " ")
    return {"DIR": "dir", "FILE": "file", "PATH": "file"}.get(metavar, "")


# ---- bash ------------------------------------------------------------------------------------------------------------

_BASH = r"""# bash completion for oci; written from its table of commands and options
_oci_ids() { "${COMP_WORDS[0]}" "${_oci_root[@]}" list --quiet 2>/dev/null; }

_oci() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= i
    local -a _oci_root=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --root) _oci_root=(--root "${COMP_WORDS[i + 1]}"); ((i++)) ;;
            @VALUED@) ((i++)) ;;
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $command:$prev in
@VALUES@
    esac
    case $command:$cur in
@OPTIONS@
        :*) COMPREPLY=($(compgen -W '@COMMANDS@' -- "$cur")) ;;
        @WITH_ID@) COMPREPLY=($(compgen -W "$(_oci_ids)" -- "$cur")) ;;
    esac
}
complete -F _oci oci
"""


def bash() -> str:
    """The script for bash; needs nothing but bash."""
    valued = [name for row in table.GLOBALS if row[2] != table.FLAG and row[0] != "root" for name in names(row)]
    with_id = "|".join(f"{command}:*" for command in table.COMMANDS if takes_id(command))
    values = [line for command in ("", *table.COMMANDS) for row in shown(command) for line in _bash_value(command, row)]
    options = [_bash_options(command) for command in ("", *table.COMMANDS)]
    text = _BASH.replace("@VALUED@", "|".join(valued)).replace("@VALUES@", "\n".join(values))
    text = text.replace("@OPTIONS@", "\n".join(options)).replace("@COMMANDS@", " ".join(table.COMMANDS))
    return text.replace("@WITH_ID@", with_id)


def _bash_options(command: str) -> str:
    words = " ".join(name for row in shown(command) for name in names(row))
    return f"        {command}:-*) COMPREPLY=($(compgen -W '{words}' -- \"$cur\")) ;;"


def _bash_value(command: str, row: Option) -> list[str]:
    if row[2] == table.FLAG:
        return []
    how = {"dir": "-d", "file": "-f", "": ""}.get(kind(row), f"-W '{kind(row)}'")
    reply = f'COMPREPLY=($(compgen {how} -- "$cur")); ' if how else ""
    return [f"        {'|'.join(f'{command}:{name}' for name in names(row))}) {reply}return ;;"]


# ---- zsh -------------------------------------------------------------------------------------------------------------

_ZSH = r"""#compdef oci
# zsh completion for oci; written from its table of commands and options
_oci_ids() {
    local -a ids root
    (( ${+opt_args[--root]} )) && root=(--root ${opt_args[--root]})
    ids=(${(f)"$(oci $root list --quiet 2>/dev/null)"})
    compadd -a ids
}

_oci() {
    local curcontext=$curcontext state line
    typeset -A opt_args
    local -a commands
    commands=(
@COMMANDS@
    )
    _arguments -C \
@GLOBALS@
        '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $line[1] in
@CASES@
            esac ;;
    esac
}
_oci "$@"
"""


def zsh() -> str:
    """The script for zsh, to be installed as ``_oci``."""
    commands = "\n".join(f"        {_zsh_quote(f'{name}:{row[6]}')}" for name, row in table.COMMANDS.items())
    overall = "\n".join(f"        {spec} \\" for row in shown("") for spec in _zsh_option(row))
    cases = []
    for name in table.COMMANDS:
        specs = [spec for row in shown(name) for spec in _zsh_option(row)]
        specs.append("'1:container:_oci_ids'" if takes_id(name) else "'1:container:'")
        cases.append(f"                {name}) _arguments {' '.join(specs)} ;;")
    return _ZSH.replace("@COMMANDS@", commands).replace("@GLOBALS@", overall).replace("@CASES@", "\n".join(cases))


def _zsh_option(row: Option) -> list[str]:
    how = {"dir": "_files -/", "file": "_files", "": ""}.get(kind(row), f"({kind(row)})")
    value = "" if row[2] == table.FLAG else f":{row[3].replace(':', ' ')}:{how}"
    text = row[4].replace("[", "(").replace("]", ")").replace(":", "\\:")
    star = "*" if row[2] == table.LIST else ""
    return [_zsh_quote(f"{star}{name}[{text}]{value}") for name in names(row)]


def _zsh_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ---- fish ------------------------------------------------------------------------------------------------------------

_FISH = """# fish completion for oci; written from its table of commands and options
function __oci_ids
    set -l words (commandline -opc)
    set -l root
    for i in (seq (count $words))
        test $words[$i] = --root; and set root --root $words[(math $i + 1)]
    end
    oci $root list --quiet 2>/dev/null
end
complete -c oci -f
"""


def fish() -> str:
    """The script for fish."""
    lines = []
    for row in shown(""):
        lines.append(f"complete -c oci -n __fish_use_subcommand{_fish_option(row)}")
    for name, command in table.COMMANDS.items():
        lines.append(f"complete -c oci -n __fish_use_subcommand -a {name} -d {_fish_quote(command[6])}")
    for name in table.COMMANDS:
        there = f"complete -c oci -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{there}{_fish_option(row)}" for row in shown(name)]
        if takes_id(name):
            lines.append(f"{there} -a '(__oci_ids)'")
    return _FISH + "\n".join(lines) + "\n"


def _fish_option(row: Option) -> str:
    long, short, what, _, text = row
    known = {"dir": " -x -a '(__fish_complete_directories)'", "file": " -r -F", "": " -x"}
    how = known.get(kind(row), f" -x -a '{kind(row)}'")
    return f" -l {long}{f' -s {short}' if short else ''}{'' if what == table.FLAG else how} -d {_fish_quote(text)}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
