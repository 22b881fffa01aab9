"""Whatever the surroundings are, commands end with an answer or with one line and a documented exit code.

Each trial changes one or two things at random: environment variables, the store, a model folder, arguments, the
current folder, standard input. ``PHI3_TEST_SURROUNDINGS=1000`` tries as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TRIALS = int(os.environ.get("PHI3_TEST_SURROUNDINGS", "24"))
DOCUMENTED = {0, 2, 3, 4, 5, 130}
ODD_TEXTS = (
    *("", " ", "~", "~nobody-of-this-name", "/dev/null", "/proc/self/mem", "/nowhere/at/all", "x" * 300, "x/" * 2000),
    *(
        "nan",
        "-1",
        "0",
        "1e999",
        "1" * 5000,
        "http://[",
        "http://127.0.0.1:1",
        "not a url",
        "ftp://x",
        "null",
        "[]",
        "{}",
    ),
    *(
        "a\nb",
        "\u202e",
        "é",
        "\udc80\udcff",
        "%s%n",
        "${HOME}",
        "C:\\x",
        "\\\\server\\share",
        "nul",
        ".",
        "..",
        "-",
        "--",
    ),
)
MODELS = (
    *("owner/name", "owner/name@v1/x", "hf://owner/name/x.gguf", "https://huggingface.co/owner/name", "owner/\udcff"),
    *("phi-3-mini-4k-instruct", "phi-4", "SAMPLE", "https://[::1/owner/name", "hf://", "\ud800", "./\udfff"),
)
VARIABLES = (
    *("PHI3_HOME", "HOME", "TMPDIR", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY"),
    *("PHI3_LOAD_LIMIT", "PHI3_SURVEY_LIMIT", "PHI3_PREFILL_LIMIT", "PHI3_TOKEN_LIMIT", "PHI3_DIAGNOSE_LIMIT"),
    *("XDG_CACHE_HOME", "COLUMNS", "LC_ALL", "LANG", "PYTHONIOENCODING", "NO_COLOR", "TERM", "PATH", "USER", "LOGNAME"),
    *(
        "HF_TOKEN_PATH",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "ALL_PROXY",
        "SSLKEYLOGFILE",
        "HF_HUB_OFFLINE",
        "PYTHONOPTIMIZE",
        "PYTHONWARNINGS",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "NO_PROXY",
    ),
)
ODD_BYTES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[]",
    b"null",
    b"{",
    b'{"a":' * 5000,
    b"\xff" * 64,
    b"1" * 9000,
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    2**70,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [None],
    {"a": {}},
    "\udc80",
    "x\ud800",
    [[[]]],
    "../../x",
    float("nan"),
)
COMMANDS = (
    *(("devices",), ("devices", "--json"), ("plugins",), ("models", "list"), ("models", "list", "--json")),
    *(("models", "show", "MODEL"), ("models", "verify"), ("models", "rm", "MODEL"), ("models", "rm", "--unused")),
    *(("run", "-m", "MODEL", "Hello"), ("run", "-m", "MODEL", "--json", "Hello"), ("chat", "-m", "MODEL")),
    *(("models", "pull", "MODEL"), ("models", "pull", "--source", "MODEL"), ("quantize", "MODEL", "-p", "fp16")),
    *(
        ("doctor", "-m", "MODEL"),
        ("eval", "MODEL"),
        ("run", "-m", "MODEL", "-"),
        ("run", "-m", "MODEL", "--offline", "Hello"),
    ),
)
COMMON = ("--model", "--device", "--precision", "--policy", "--option")
GENERATION = ("--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed", "--system", "--stop")
FLAGS = {
    "run": COMMON + GENERATION,
    "chat": COMMON + GENERATION,
    "quantize": ("--device", "--precision", "--group-size", "--ratio", "--calibration", "--exporter", "--output"),
    "eval": ("--device", "--precision", "--text"),
    "doctor": ("--report", "--device"),
    "devices": ("--policy", "--device", "--precision"),
}
SAID = ("/save", "/save {}", "/system {}", "/reset {}", "/retry", "/stats", "/help", "/{}", "{}", "Hello", "/quit")


class Surroundings:
    """A model folder, a store and an environment, to be damaged."""

    def __init__(self, seed, model, home, monkeypatch):
        self.random = random.Random(seed)
        self.model, self.home, self.patch = Path(model), home, monkeypatch
        self.changes = []
        self.arguments = list(self.random.choice(COMMANDS))

    def change(self):
        """Change something, chosen at random."""
        kinds = (self.variable, self.variable, self.file_of_model, self.file_of_model, self.file_of_store, self.flag)
        self.random.choice((*kinds, self.word, self.folder, self.current_folder))()

    def note(self, *words):
        """Remember a change for the message of a failure."""
        self.changes.append(" ".join(repr(word)[:80] for word in words))

    def variable(self):
        """Set or unset an environment variable."""
        name, value = self.random.choice(VARIABLES), self.random.choice((None, *ODD_TEXTS))
        if sys.platform == "win32" and value is not None and ("\n" in value or len(value) > 3000):
            return
        self.note(name, value)
        if value is None:
            self.patch.delenv(name, raising=False)
        else:
            self.patch.setenv(name, value)

    def file_of_model(self):
        """Damage a file of the user's model folder, or add one."""
        names = (
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "generation_config.json",
            "model.safetensors",
        )
        more = ("special_tokens_map.json", "chat_template.jinja", "model.safetensors.index.json", "added_tokens.json")
        self.damage(self.model / self.random.choice((*names, *names, *more)))

    def file_of_store(self):
        """Damage a file of the store."""
        files = sorted(path for path in self.home.rglob("*") if path.is_file())
        if files:
            self.damage(self.random.choice(files))

    def damage(self, file):
        """Write nonsense, cut, change a value, remove, or put a folder in a file's place."""
        how = self.random.choice(("bytes", "cut", "value", "value", "value", "remove", "folder"))
        before = file.read_bytes() if file.is_file() else b"{}"
        self.note("damaged", file.name, how)
        if file.is_dir():  # by an earlier change
            file.rmdir()
        if how == "bytes":
            file.write_bytes(self.random.choice(ODD_BYTES))
        elif how == "cut":
            file.write_bytes(before[: self.random.randrange(len(before) + 1)])
        elif how == "value":
            self.change_value(file, before)
        else:
            file.unlink(missing_ok=True)
            if how == "folder":
                file.mkdir()

    def change_value(self, file, before):
        """Replace, add or remove a value somewhere in a JSON file."""
        try:
            content = json.loads(before)
        except ValueError:
            return
        place = content
        while isinstance(place, (dict, list)) and place:
            key = self.random.choice(sorted(place, key=str) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or self.random.random() < 0.4:
                self.note("key", key)
                place[key] = self.random.choice(ODD_VALUES)
                break
            place = place[key]
        file.write_text(json.dumps(content), encoding="utf-8")

    def flag(self):
        """Add an option with a value that may make no sense."""
        if flags := FLAGS.get(self.arguments[0]):
            added = (self.random.choice(flags), self.random.choice(ODD_TEXTS))
            self.note(*added)
            self.arguments[1:1] = added

    def word(self):
        """Name another model."""
        word = self.random.choice((*ODD_TEXTS, *MODELS))
        self.note("model", word)
        self.arguments = [word if argument == "MODEL" else argument for argument in self.arguments]

    def folder(self):
        """Put a file where the store has a folder, or a folder where nothing was."""
        name = self.random.choice(
            ("staging", "artifacts", "sources", "engines", "libraries", "survey.json", "packages")
        )
        path = self.home / name
        self.note("swapped", name)
        if path.is_dir():
            shutil.rmtree(path)
            path.write_bytes(b"x")
        else:
            path.unlink(missing_ok=True)
            path.mkdir(parents=True)

    def current_folder(self):
        """Work in a folder that has been removed."""
        if sys.platform == "win32":
            return  # Windows keeps it
        gone = self.home.parent / "gone"
        gone.mkdir()
        self.patch.chdir(gone)
        subprocess.run(["rmdir", gone], check=True)  # not by this process, whose uses of files are watched
        self.note("current folder removed")


@pytest.mark.parametrize("seed", range(TRIALS))
def test_any_surroundings(seed, plugins, source, home, run_main, monkeypatch, tmp_path):
    plugins.add("parrot")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    if seed % 2:
        run_main("models", "pull", source, "-d", "parrot")
    around = Surroundings(seed, source, home, monkeypatch)
    with (tmp_path / "stdin").open("w+b") as stdin:
        said = "\n".join(around.random.choice(SAID).format(around.random.choice(ODD_TEXTS)) for _ in range(4))
        content = around.random.choice((said.encode("utf-8", "surrogatepass"), *ODD_BYTES))
        stdin.write(content)
        stdin.seek(0)
        text = os.fdopen(os.dup(stdin.fileno()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", text)
        for _ in range(around.random.choice((1, 1, 2))):
            around.change()
        arguments = [source if argument == "MODEL" else argument for argument in around.arguments]
        code, _, err = run_main(*arguments)
        sys.stdin.close()
        with contextlib.suppress(ValueError):
            text.close()
    words = f"phi3 {arguments}, stdin {content[:20]!r}, {around.changes}:\n{err}"
    assert code in DOCUMENTED, words
    assert "unexpected" not in err, words
    assert "Traceback" not in err, words
