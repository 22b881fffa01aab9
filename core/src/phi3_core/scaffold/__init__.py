"""A new backend: the files of a distribution that installs, registers and answers, with numpy in place of a runtime.

The templates are those files for a backend that is called ``acme``.
"""
