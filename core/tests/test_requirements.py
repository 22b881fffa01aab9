"""What a backend needs besides itself is refused with the command that installs it."""

from __future__ import annotations

import pytest
from phi3_core.requirements import missing_requirement, release
from phi3_core.values import Refusal


@pytest.fixture
def site(tmp_path):
    """A folder with the metadata of one distribution, Acme_Runtime 2.5.1, without its files."""
    (tmp_path / "Acme_Runtime-2.5.1+cpu.dist-info").mkdir()
    return [str(tmp_path)]


@pytest.mark.parametrize(
    "requirement",
    [
        *("acme-runtime", "Acme.Runtime", "acme-runtime>=2.5", "acme-runtime >= 2, < 3", "acme-runtime==2.5.1"),
        *("acme-runtime>2.5,<=2.5.1,!=2.5.2", "acme-runtime>=2.5.1.0"),
    ],
)
def test_what_is_there_is_not_missing(site, requirement):
    assert missing_requirement(requirement, path=site) is None


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("acme-driver>=2", "acme-driver is not installed"),
        ("acme-runtime>=2.6", "acme-runtime is 2.5.1+cpu"),
        ("acme-runtime>=2,<2.5", "acme-runtime is 2.5.1+cpu"),
        ("acme-runtime==2.5", "acme-runtime is 2.5.1+cpu"),
        ("acme-runtime>=2,!=2.5.1", "acme-runtime is 2.5.1+cpu"),
    ],
)
def test_what_is_missing_comes_with_the_command(site, requirement, reason):
    assert missing_requirement(requirement, path=site) == Refusal(reason=reason, remedy=f'pip install "{requirement}"')


def test_a_name_alone_needs_no_quotes(site):
    found = missing_requirement("acme-driver", path=site)
    assert found == Refusal(reason="acme-driver is not installed", remedy="pip install acme-driver")


def test_metadata_without_the_files_is_told(site):
    found = missing_requirement("acme-runtime", module="acme_runtime", path=site)
    assert found is not None
    assert found.reason == "the files of acme-runtime are missing, although it is installed"
    assert missing_requirement("pytest", module="pytest") is None


@pytest.mark.parametrize("requirement", ["", "acme-runtime~=2.5", "acme[cpu]", "acme>=new", "acme; python_version>'3'"])
def test_other_forms_are_an_error_of_the_author(requirement):
    with pytest.raises(ValueError, match="is not a name with bounds"):
        missing_requirement(requirement)


@pytest.mark.parametrize(("version", "numbers"), [("2.5.1+cpu", (2, 5, 1)), ("6.0.0", (6,)), ("3rc1", (3,)), ("x", ())])
def test_only_release_numbers_are_compared(version, numbers):
    assert release(version) == numbers
