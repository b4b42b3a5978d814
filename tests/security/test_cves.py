"""Each known way out of a container of runc, crun and youki, tried on ocimk. See ocimk-security(7) for the table."""

from __future__ import annotations

import attacks
import attacks_process
import pytest
import siege
from siege import Siege


def held(lab: Siege, attack: siege.Attack) -> None:
    assert attack(lab) + lab.traces() == []


def test_cve_2014_8989(lab: Siege) -> None:
    held(lab, attacks_process.groups_dropped_by_nobody)


def test_cve_2016_3697(lab: Siege) -> None:
    held(lab, attacks_process.user_named_by_a_number)


def test_cve_2016_8867(lab: Siege) -> None:
    held(lab, attacks_process.capabilities_of_a_user)


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_PTRACE",)], ids=["plain", "ptrace"])
def test_cve_2016_9962(lab: Siege, capabilities: tuple[str, ...]) -> None:
    held(lab, lambda lab: attacks_process.watched_from_inside(lab, capabilities))


def test_cve_2019_5736(lab: Siege) -> None:
    held(lab, attacks_process.program_is_the_runtime)


def test_cve_2019_5736_overwritten(lab: Siege) -> None:
    held(lab, attacks_process.executable_is_overwritten)


def test_cve_2019_16884(lab: Siege) -> None:
    held(lab, attacks.proc_that_is_faked)


def test_cve_2019_18837(lab: Siege) -> None:
    held(lab, attacks.links_as_mount_points)


def test_cve_2019_19921(lab: Siege) -> None:
    held(lab, attacks.proc_that_is_swapped)


def test_cve_2021_30465(lab: Siege) -> None:
    held(lab, attacks.swapped_destinations)


def test_cve_2021_43784(lab: Siege) -> None:
    held(lab, attacks_process.more_than_64_kib)


def test_cve_2022_29162(lab: Siege) -> None:
    held(lab, attacks_process.inheritable_capabilities)


def test_cve_2023_25809(lab: Siege) -> None:
    held(lab, attacks_process.cgroups_above_ones_own)


def test_cve_2023_27561(lab: Siege) -> None:
    held(lab, attacks.proc_that_is_a_link)


def test_cve_2024_3154(lab: Siege) -> None:
    held(lab, attacks_process.annotations_that_run_programs)


def test_cve_2024_21626(lab: Siege) -> None:
    held(lab, attacks_process.working_directory_by_descriptor)


def test_cve_2024_21626_descriptors(lab: Siege) -> None:
    held(lab, attacks_process.descriptors_left_open)


def test_cve_2025_24965(lab: Siege) -> None:
    held(lab, attacks.files_written_into_the_root)


def test_cve_2025_31133(lab: Siege) -> None:
    held(lab, attacks.null_that_is_a_link)


def test_cve_2025_31133_swapped(lab: Siege) -> None:
    held(lab, attacks.null_that_is_swapped)


def test_cve_2025_52565(lab: Siege) -> None:
    held(lab, attacks.console_that_is_a_link)


def test_cve_2025_52565_swapped(lab: Siege) -> None:
    held(lab, attacks.console_that_is_swapped)


def test_cve_2025_52881(lab: Siege) -> None:
    held(lab, attacks.settings_that_are_redirected)


def test_cve_2025_52881_label(lab: Siege) -> None:
    held(lab, attacks.label_that_is_redirected)


def test_cve_2026_30892(lab: Siege) -> None:
    held(lab, attacks_process.ids_that_are_none)


def test_cve_2026_41579(lab: Siege) -> None:
    held(lab, attacks.dev_that_is_a_link)


def test_names_that_lead_elsewhere(lab: Siege) -> None:
    held(lab, attacks_process.names_that_lead_elsewhere)


def test_cgroups_that_lead_elsewhere(lab: Siege) -> None:
    held(lab, attacks_process.cgroups_that_lead_elsewhere)


# ---- oci exec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_PTRACE",)], ids=["plain", "ptrace"])
def test_cve_2016_9962_exec(lab: Siege, capabilities: tuple[str, ...]) -> None:
    held(lab, lambda lab: attacks_process.exec_watched_from_inside(lab, *capabilities))


def test_cve_2022_29162_exec(lab: Siege) -> None:
    held(lab, attacks_process.capabilities_of_exec)


def test_cve_2024_21626_exec(lab: Siege) -> None:
    held(lab, attacks_process.directory_of_exec)


def test_cve_2026_30892_exec(lab: Siege) -> None:
    held(lab, attacks_process.users_of_exec)


def test_cgroups_of_exec_that_lead_elsewhere(lab: Siege) -> None:
    held(lab, attacks_process.cgroups_of_exec)
