"""The manual says what the programs are: a page each, every option, nothing that is not there, examples that work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typed

import ocimk
from ocimk.cli import table
from ocimk.container import names, sync
from ocimk.stages import contract, seccomp, state_command
from ocimk.stages.cgroups import update

TOP = Path(__file__).resolve().parents[2]
PAGES = sorted((TOP / "man").glob("*.[1-8]"))
STAGES = sorted(contract.STOCK)
ORDER = (
    *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "ENVIRONMENT", "EXIT STATUS", "NOTES", "EXAMPLES"),
    "SEE ALSO",
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="real containers need root")


class Page:
    """A page's source, taken apart at its macros."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.lines = path.read_text().splitlines()
        self.text = "\n".join(map(plain, self.lines))

    def part(self, macro: str, title: str, lines: list[str] | None = None) -> list[str]:
        """The lines below a heading up to the next of its kind."""
        found = self.lines if lines is None else lines
        at = [plain(line) for line in found].index(f".{macro} {title}")
        body = found[at + 1 :]
        ends = (".SH", ".SS") if macro == "SS" else (".SH",)
        return body[: next((i for i, line in enumerate(body) if line.startswith(ends)), len(body))]

    def titles(self, macro: str, lines: list[str] | None = None) -> list[str]:
        found = self.lines if lines is None else lines
        return [plain(line[4:]).strip('"') for line in found if line.startswith(f".{macro} ")]

    def examples(self) -> list[list[str]]:
        """The lines of each example."""
        blocks: list[list[str]] = []
        inside = False
        for line in self.lines:
            if line == ".EX":
                blocks.append([])
            elif inside and line != ".EE":
                blocks[-1].append(plain(line))
            inside = line == ".EX" or (inside and line != ".EE")
        return blocks


def plain(line: str) -> str:
    """The line without escapes."""
    for escape, meant in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\(ha", "^"), (r"\(ti", "~"), (r"\&", "")):
        line = line.replace(escape, meant)
    return re.sub(r"\\f.", "", line).replace(r"\e", "\\")


def heads(lines: list[str]) -> list[str]:
    """What stands at the head of tagged paragraphs, without macros."""
    found = []
    for at, line in enumerate(lines):
        if line in (".TP", ".TQ"):
            head = plain(lines[at + 1])
            words = re.sub(r"^\.[A-Z]+ ", "", head) if head.startswith(".") else head
            found.append(" ".join(words.replace('"', " ").split()).replace(" ,", ","))
    return found


def options(lines: list[str]) -> dict[str, tuple[str, str]]:
    """The options at the heads: long name to (short, metavar)."""
    found = {}
    for head in heads(lines):
        match = re.fullmatch(r"(?:-(\w), )?--([a-z0-9-]+)(?: (\S+))?", head)
        assert match, f"not an option: {head}"
        found[match[2]] = (match[1] or "", match[3] or "")
    return found


def page(name: str) -> Page:
    (path,) = (path for path in PAGES if path.stem == name)
    return Page(path)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def each(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


# ---- all pages -------------------------------------------------------------------------------------------------------


def test_every_program_has_a_page_and_every_page_a_program() -> None:
    programs = {path.name for folder in ("bin", "libexec") for path in (TOP / folder).iterdir() if path.is_file()}

    assert {path.stem for path in PAGES if path.suffix == ".1"} == programs
    assert {path.name for path in PAGES if path.suffix != ".1"} == {
        *("ocimk-folder.5", "ocimk-properties.7", "ocimk-security.7", "ocimk-stage.7"),
    }


def test_the_head_names_page_section_and_version(each: Page) -> None:
    head = plain(each.lines[0])

    upper, section = each.name.upper(), each.path.suffix[1:]
    assert re.fullmatch(
        rf'\.TH {upper} {section} \d{{4}}-\d\d-\d\d "ocimk {re.escape(ocimk.__version__)}" "ocimk manual"', head
    )
    (name, *_) = [plain(line) for line in each.part("SH", "NAME")]
    assert re.fullmatch(rf"{each.name} - [a-z].*[^.]", name)


def test_sections_stand_in_order(each: Page) -> None:
    found = each.titles("SH")

    assert [title for title in ORDER if title in found] == found
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"} <= set(found)
    if each.path.suffix == ".1" or each.name == "ocimk-stage":
        assert found == list(ORDER)


def test_pages_referred_to_exist(each: Page) -> None:
    for name, section in re.findall(r"\b(ocimk?(?:-[a-z-]+)?) ?\((\d)\)", each.text):
        assert (TOP / "man" / f"{name}.{section}").exists(), f"{name}({section})"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["man", "--warnings", "-E", "UTF-8", "-l"], id="man"),
        pytest.param(["mandoc", "-T", "lint", "-W", "warning"], id="mandoc"),
    ],
)
def test_roff_is_clean(each: Page, command: list[str]) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "80"}

    done = subprocess.run([*command, each.path], capture_output=True, text=True, env=env, timeout=60)

    assert done.stderr + (done.stdout if command[0] == "mandoc" else "") == ""


def test_hyphens_that_are_typed_are_no_typographic_ones(each: Page) -> None:
    """groff prints a bare - as U+2010, which neither pastes nor is found by a search."""
    for line in each.lines[1:]:
        assert not re.search(r"(?<![\\\w-])--?[a-z]", line), line
        assert not re.search(r"\boci-", line), line


def test_command_lines_in_examples_are_understood(each: Page) -> None:
    for block in each.examples():
        for command in typed.commands(block):
            for words in typed.programs(command):
                typed.understood(words)


# ---- oci(1) ----------------------------------------------------------------------------------------------------------


def shown(rows: tuple[table.Option, ...]) -> dict[str, tuple[str, str]]:
    return {long: (short, metavar) for long, short, _, metavar, about in rows if about}


def test_oci_lists_the_commands_of_the_table() -> None:
    assert heads(page("oci").part("SH", "DESCRIPTION")) == list(table.COMMANDS)


def test_oci_has_the_general_options() -> None:
    found = options(page("oci").part("SS", "General options"))

    assert found == shown((*table.GLOBALS, table.HELP, table.VERSION))


@pytest.mark.parametrize("command", table.COMMANDS)
def test_oci_has_the_options_of_each_command(command: str) -> None:
    oci = page("oci")
    rows = table.rows(command)
    title = f"oci {command} {'[OPTION...] ' if shown(rows) else ''}{table.COMMANDS[command][1]}".rstrip()

    assert options(oci.part("SS", title)) == shown(rows)


def test_oci_has_no_other_subsection_of_options() -> None:
    oci = page("oci")
    lines = oci.lines[oci.lines.index(".SH OPTIONS") : oci.lines.index(".SH FILES")]

    named = [title.split()[1] for title in oci.titles("SS", lines) if title != "General options"]
    assert named == list(table.COMMANDS)


def test_oci_lists_its_exit_statuses() -> None:
    assert heads(page("oci").part("SH", "EXIT STATUS")) == ["0", "1", "3", "126", "128+ N"]


# ---- the stages ------------------------------------------------------------------------------------------------------


def own_options(name: str) -> dict[str, bool]:
    """The options of a stage by name, and whether they take a value."""
    found = {option[2:]: bool(metavar) for option, metavar, _ in contract.load(name).OPTIONS}
    if name == "oci-state":
        for form in state_command._OPTIONS.values():
            found |= {option[2:]: value for option, value in form.items()}
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_its_options_and_no_others(name: str) -> None:
    found = {option: bool(metavar) for option, (_, metavar) in options(page(name).part("SH", "OPTIONS")).items()}

    assert found == own_options(name) | {"help": False, "version": False}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_its_options_in_the_synopsis(name: str) -> None:
    synopsis = "\n".join(map(plain, page(name).part("SH", "SYNOPSIS")))

    assert set(re.findall(r"--([a-z][a-z-]*)", synopsis)) == set(own_options(name))
    for verb in contract.VERBS:
        assert f".B {name} {verb}\n" in synopsis
    assert (".IR NEXT" in synopsis) == contract.load(name).CHAINS


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_tells_its_verbs(name: str) -> None:
    found = heads(page(name).part("SH", "DESCRIPTION"))

    assert [head for head in found if head in contract.VERBS] == list(contract.VERBS)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_its_exit_statuses(name: str) -> None:
    chains = contract.load(name).CHAINS

    assert heads(page(name).part("SH", "EXIT STATUS")) == ["0", "1", "2", *(["126, 127"] if chains else [])]


# ---- ocimk-stage(7) --------------------------------------------------------------------------------------------------


def test_the_contract_lists_verbs_and_exit_statuses() -> None:
    stage = page("ocimk-stage")

    assert heads(stage.part("SS", "The verbs")) == list(contract.VERBS)
    assert heads(stage.part("SH", "EXIT STATUS")) == ["0", "1", "2", "126", "127"]


def test_the_contract_names_every_descriptor_that_is_handed_along() -> None:
    library = TOP / "lib/ocimk"
    source = "".join(path.read_text() for path in library.rglob("*.py"))
    handed = set(re.findall(r'fds\["([a-z.]+)"\]', source)) | {names.FIFO, names.VERDICT}
    handed -= {"seccomp", "label"}  # made and used by oci-exec-fifo alone

    described = " ".join(heads(page("ocimk-stage").part("SS", "Descriptors"))).replace(",", "").split()
    assert handed <= set(described)
    assert {"readonly-", "mount"} <= set(described)


def test_the_contract_names_every_message() -> None:
    told = set(re.findall(r"^ +(?:from .* side +)?([a-z]+)(?: [A-Z][A-Z<>a-z ]*)? {3,}", sync.__doc__ or "", re.M))

    found = {head.split()[0] for head in heads(page("ocimk-stage").part("SS", "Messages"))}
    assert {"mounted", "ready", "go"} <= told
    assert found == told


@needs_root
def test_the_script_that_replaces_a_stage_works(tmp_path: Path, bundle: Any, oci_called: Any) -> None:
    (block,) = (block for block in page("ocimk-stage").examples() if block[0] == "#!/bin/sh")
    stock = "/usr/local/libexec/ocimk/"
    script = "\n".join(block).replace(stock, f"{TOP}/libexec/") + "\n"
    assert stock in "\n".join(block)
    place = tmp_path / "stages"
    place.mkdir()
    (place / "oci-sysctl").write_text(script)
    (place / "oci-sysctl").chmod(0o755)
    bundle.config["hostname"] = "replaced"
    bundle.script("cat /proc/sys/net/ipv4/ping_group_range; hostname")

    done = oci_called("--exec-path", place, "run", "--bundle", bundle.save(), oci_called.id()).ok()
    explained = subprocess.run([place / "oci-sysctl", "explain", bundle.path], capture_output=True, text=True)

    assert done.out.split() == ["0", "2147483647", "replaced"]
    assert explained.stdout.splitlines() == [
        "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range",
        "hostname replaced",
    ]


# ---- ocimk-folder(5) -------------------------------------------------------------------------------------------------


def files_described() -> set[str]:
    return set(", ".join(heads(page("ocimk-folder").part("SH", "FILES"))).split(", "))


def members_described() -> set[str]:
    return set(heads(page("ocimk-folder").part("SS", "state.json")))


def test_the_folder_page_has_every_file_name_of_the_source() -> None:
    constants = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)} - {names.CACHE}

    assert constants | {seccomp.PROGRAM, seccomp.INFO, update.FILE} <= files_described()


@needs_root
def test_the_folder_page_describes_a_real_folder(bundle: Any, oci_called: Any) -> None:
    bundle.config["annotations"] = {"com.example": "yes"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.script("true")

    folder = oci_called.root / oci_called.create(bundle)
    shutil.rmtree(oci_called.root / ".cache")  # it is every container's, and stays

    state = json.loads((folder / "state.json").read_text())
    assert {path.name for path in folder.iterdir()} <= files_described()
    assert {*state, *state["ocimk"]} <= members_described()
    kinds = set(heads(page("ocimk-folder").part("SS", "ledger")))
    for line in (folder / "ledger").read_text().splitlines():
        stage, kind, _ = line.split(" ", 2)
        assert any(head.startswith(f"{stage} {kind} ") for head in kinds), line
