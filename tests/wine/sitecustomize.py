"""What Wine 8 lacks, as a Windows that does not have it would answer."""

import _winapi
import os
import sys

if hasattr(_winapi, "CopyFile2"):  # Wine's ends the process; shutil copies without it
    del _winapi.CopyFile2


def _symlink(src, dst, target_is_directory=False, *, dir_fd=None):
    """Refuse, as Windows does without the privilege. Wine's CreateSymbolicLinkW reports success and makes nothing."""
    raise OSError(22, "A required privilege is not held by the client", os.fspath(src), 1314, os.fspath(dst))


os.symlink = _symlink

if sys.platform == "win32":  # which type checkers on other systems understand
    _create_process = _winapi.CreateProcess

    def _create_process_again(*arguments):
        """Start a process, up to three times: once in some thousand starts Wine's process ends before it begins."""
        for _ in range(2):
            try:
                return _create_process(*arguments)
            except OSError as error:
                if error.winerror != 1359:  # ERROR_INTERNAL_ERROR
                    raise
        return _create_process(*arguments)

    _winapi.CreateProcess = _create_process_again
