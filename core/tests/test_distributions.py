"""Versions by the names of metadata folders are those that the metadata itself tells."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from phi3_core.distributions import canonical_name, installed_versions


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
