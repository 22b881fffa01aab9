"""Versions by the names of metadata folders are those that the metadata itself tells."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from phi3_core.distributions import canonical_name, installed_versions
from phi3_core.doctor.conflicts import conflicts
from phi3_core.doctor.versions import read_installed
from phi3_core.metadata import distributions
from phi3_core.plugin import installed


def test_what_the_environment_has_is_what_metadata_tells():
    names = {canonical_name(each.metadata["Name"]) for each in importlib.metadata.distributions()}
    found = installed_versions(names)
    assert found == {name: importlib.metadata.version(name) for name in names}


def test_what_is_not_installed_is_left_out():
    assert installed_versions(["phi3-core", "no-such-thing"]).keys() == {"phi3-core"}


def test_of_two_the_first_on_the_path_counts(tmp_path):
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / folder / f"Some_Thing-{version}.dist-info").mkdir(parents=True)
    path = [str(tmp_path / name) for name in ("nowhere", "first", "second")]
    assert installed_versions(["some-thing"], path) == {"some-thing": "2.0"}


def test_one_without_such_a_folder_is_found_by_its_metadata(tmp_path):
    folder = tmp_path / "old.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: old\nVersion: 3.1\n", encoding="utf-8")
    assert installed_versions(["old"], [str(tmp_path)]) == {"old": "3.1"}


@pytest.mark.parametrize("name", ["Phi3_Core", "phi3.core", "PHI3-core", "phi3-.core"])
def test_names_are_compared_as_indexes_spell_them(name):
    assert canonical_name(name) == "phi3-core"


def test_by_default_it_looks_where_modules_are_imported_from():
    assert installed_versions(["pytest"]) == installed_versions(["pytest"], sys.path)


DAMAGED = {
    "a line that is no entry point": {"entry_points.txt": b"[console_scripts]\nthis line is no entry point\n"},
    "bytes that are not UTF-8": {"entry_points.txt": b"[x]\na = b:c\xfc\n"},
    "a backend among them": {"entry_points.txt": b"[phi3]\nacme = acme\n[scripts]\nthis line is no entry point\n"},
    "no file at all": {},
    "no name": {"METADATA": b"Metadata-Version: 2.1\nVersion: 1.0\n"},
    "bytes in the metadata": {"METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\nAuthor: J\xfcrgen\n"},
}


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Puts a damaged distribution on the path, and returns its folder."""

    def make(name, title="other-1.0.dist-info"):
        folder = tmp_path / "damaged" / title
        folder.mkdir(parents=True)
        files = {"METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"} if DAMAGED[name] else {}
        for file, content in (files | DAMAGED[name]).items():
            (folder / file).write_bytes(content)
        monkeypatch.syspath_prepend(folder.parent)
        return folder

    return make


@pytest.mark.parametrize("title", ["other-1.0.dist-info", "~ther-1.0.dist-info"])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata_of_others_costs_nothing(plugins, damaged, name, title):
    plugins.add("parrot")
    folder = damaged(name, title)
    found, unreadable = distributions("phi3", all_of_them=True)
    assert {"phi3-parrot", "phi3-core", "pytest"} <= {canonical_name(each.name) for each in found}
    if name != "bytes in the metadata":
        assert [each.path for each in unreadable] == [str(folder)]
    backends, broken = installed()
    assert [backend.name for backend in backends] == ["parrot"]
    assert [each.distribution for each in broken] == ([str(folder)] if name == "a backend among them" else [])
    read_installed().packages()
    assert installed_versions(["phi3-core", "other", "no-such-thing"])["phi3-core"]


def test_the_doctor_names_what_cannot_be_read(plugins, damaged):
    plugins.add("parrot")
    folder = damaged("a line that is no entry point")
    assert [each.message for each in conflicts(read_installed()) if str(folder) in each.message]
