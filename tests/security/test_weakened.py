"""The attacks of test_cves.py against a runtime with one defence taken out: each must gain something there, or it would
be held off by nothing but its own weakness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attacks
import attacks_process
import pytest
import siege

import kit

GAINS: tuple[tuple[str, siege.Attack, str], ...] = (
    ("2016_3697", attacks_process.user_named_by_a_number, "user_by_name"),
    ("2016_8867", attacks_process.capabilities_of_a_user, "capabilities_are_kept"),
    ("2016_9962", attacks_process.watched_from_inside, "enters_early"),
    ("2016_9962_exec", lambda lab: attacks_process.exec_watched_from_inside(lab, "CAP_SYS_PTRACE"), "enters_with_all_rights"),
    ("2019_5736", attacks_process.program_is_the_runtime, "failures_do_not_matter"),
    ("2019_5736_overwritten", attacks_process.executable_is_overwritten, "image_is_a_file_of_the_host"),
    ("2019_16884", attacks.proc_that_is_faked, "proc_may_be_covered"),
    ("2019_18837", attacks.links_as_mount_points, "unconfined"),
    ("2019_19921", attacks.proc_that_is_swapped, "proc_through_links"),
    ("2021_30465", attacks.swapped_destinations, "check_then_use"),
    ("2021_43784", attacks_process.more_than_64_kib, "lengths_of_16_bits"),
    ("2022_29162", attacks_process.inheritable_capabilities, "capabilities_are_kept"),
    ("2022_29162_exec", attacks_process.capabilities_of_exec, "capabilities_are_kept"),
    ("2023_25809", attacks_process.cgroups_above_ones_own, "cgroups_of_the_one_above"),
    ("2024_3154", attacks_process.annotations_that_run_programs, "programs_for_systemd"),
    ("2023_27561", attacks.proc_that_is_a_link, "proc_through_links"),
    ("2024_21626", attacks_process.working_directory_by_descriptor, "descriptors_stay_open"),
    ("2024_21626_descriptors", attacks_process.descriptors_left_open, "descriptors_stay_open"),
    ("2024_21626_exec", attacks_process.directory_of_exec, "descriptors_of_exec_stay_open"),
    ("2025_24965", attacks.files_written_into_the_root, "writes_into_the_root"),
    ("2025_31133", attacks.null_that_is_a_link, "null_of_the_container"),
    ("2025_31133_swapped", attacks.null_that_is_swapped, "null_of_the_container"),
    ("2025_52565", attacks.console_that_is_a_link, "console_by_path"),
    ("2025_52565_swapped", attacks.console_that_is_swapped, "console_by_path"),
    ("2025_52881", attacks.settings_that_are_redirected, "settings_by_path"),
    ("2025_52881_label", attacks.label_that_is_redirected, "label_by_path"),
    ("2026_30892", attacks_process.ids_that_are_none, "anything_goes"),
    ("2026_30892_exec", attacks_process.users_of_exec, "any_number_of_exec"),
    ("2026_41579", attacks.dev_that_is_a_link, "unconfined"),
    ("names_that_lead_elsewhere", attacks_process.names_that_lead_elsewhere, "any_name"),
    ("cgroups_that_lead_elsewhere", attacks_process.cgroups_that_lead_elsewhere, "any_cgroup"),
    ("cgroups_of_exec_that_lead_elsewhere", attacks_process.cgroups_of_exec, "any_cgroup_of_exec"),
)


@pytest.mark.parametrize(("row", "attack", "weakness"), GAINS, ids=[row for row, _, _ in GAINS])
def test_weakened(
    row: str,
    attack: siege.Attack,
    weakness: str,
    tmp_path: Path,
    besiege: Callable[[kit.Runtime], siege.Siege],
) -> None:
    lab = besiege(siege.Weakened(tmp_path / "besieged", weakness))

    assert attack(lab) + lab.traces(), f"{row}: nothing was gained with {weakness}"
