"""Files that stand for others: pointers of Git LFS and git-annex, and links to nothing.

``git clone`` without git-lfs leaves text files of some 130 bytes in the place of large files
(https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md). git-annex leaves links into ``.git/annex``, or text files
with their target.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from phi3_core.errors import ModelError

from .contents import stored_files

_LONGEST = 1024
"""Pointers of Git LFS are shorter than this many bytes."""
_GIT_LFS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_GIT_ANNEX = "annex/objects/"
_TEXT = (
    *("config.json", "generation_config.json", "genai_config.json", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("openvino_*.xml", "openvino_*.bin"),
)
# Of files of one kind, one may be all that is needed.
_ALTERNATIVES = ("*.gguf", "*.onnx", "*.onnx.data", "*.onnx_data")


def check(path: Path) -> None:
    """Check that a file, or the files in a folder that a model needs, are files and not pointers to them.

    Raises:
        ModelError: one is a pointer, or a link to a file that does not exist.
    """
    if not path.is_dir():
        _check_any([path])
        return
    entries = {entry.name: entry for entry in sorted(path.iterdir()) if not entry.is_dir()}
    for name in stored_files(path):
        _check_any([entries[name]])
    for pattern in _TEXT:
        for name in fnmatch.filter(entries, pattern):
            _check_any([entries[name]])
    for pattern in _ALTERNATIVES:
        _check_any([entries[name] for name in fnmatch.filter(entries, pattern)])


def _check_any(files: Sequence[Path]) -> None:
    """Raise if none of ``files`` is there itself."""
    found = [problem for file in files if (problem := _problem(file)) is not None]
    if found and len(found) == len(files):
        raise found[0]


def _problem(file: Path) -> ModelError | None:
    try:
        if file.is_symlink() and not file.exists():
            target = file.readlink().as_posix()
            if _GIT_ANNEX not in target:
                return ModelError(f"{file} is a link to {target}, which does not exist", hint="fetch the model again")
            return _annexed(file)
        small = file.is_file() and 0 < file.stat().st_size <= _LONGEST
        content = file.read_bytes() if small else b""
    except OSError:  # reported by whoever reads the file
        return None
    if content.startswith(_GIT_LFS):
        return ModelError(
            f"{file} is a Git LFS pointer of {len(content)} bytes, not the file itself",
            hint=f'git -C "{file.parent.as_posix()}" lfs pull',
        )
    # A link of git-annex, where Git stores links as text.
    is_path = content.count(b"\n") <= 1 and not content.lstrip().startswith(b"{")
    return _annexed(file) if is_path and _GIT_ANNEX.encode() in content else None


def _annexed(file: Path) -> ModelError:
    return ModelError(
        f"{file} is a git-annex pointer, and the file itself is not here",
        hint=f'git -C "{file.parent.as_posix()}" annex get .',
    )
