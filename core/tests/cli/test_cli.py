"""The command line, as its users meet it: what goes to stdout, what to stderr, and the exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from phi3_core.cli import main


@pytest.fixture
def phi3(plugins, source, run_main, monkeypatch):
    """Run one command in this process; returns (exit code, stdout, stderr)."""
    plugins.add("parrot")
    monkeypatch.chdir(plugins.site)

    class NoTerminal:
        buffer = Path(os.devnull).open("rb")  # noqa: SIM115 - closed by the fixture

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", NoTerminal())

    yield run_main
    NoTerminal.buffer.close()


def command(*arguments):
    return [sys.executable, "-m", "phi3_core", *map(str, arguments)]


def test_run_prints_the_answer_and_says_why_this_device(phi3, source):
    code, out, err = phi3("run", "Hello world", "-m", source, "-d", "parrot")
    assert (code, out.strip()) == (0, "Hello world")
    assert "parrot:CPU (A parrot): asked for as parrot; the only one" in err
    code, out, err = phi3("run", "Hello world", "-m", source, "-d", "parrot", "-q", "--stats")
    assert "tokens" in err
    assert len(err.splitlines()) == 1


def test_stats_say_what_processors_did(phi3, plugins, source):
    changes = """
        @hookimpl
        def generate(engine, request):
            import time
            for id in request.prompt_ids[1:3]:
                time.sleep(0.2)
                yield id
    """
    plugins.add("slow", changes=changes)
    code, _, err = phi3("run", "Hello world", "-m", source, "-d", "slow", "-q", "--stats")
    assert code == 0
    assert re.search(r"fp16 on slow:CPU, CPU \d+ % \(engine \d+ %\)$", err.strip())


def test_run_json_has_the_documented_keys(phi3, source):
    code, out, _ = phi3("run", "Hello", "-m", source, "--json")
    reply = json.loads(out)
    assert code == 0
    assert set(reply) == {
        *("text", "model", "device", "precision", "prompt_tokens", "completion_tokens", "finish_reason"),
        *("time_to_first_token_s", "decode_tokens_per_s", "attempts", "activity"),
    }
    shares = {"cpu", "engine_cpu", "gpu", "npu"}
    assert set(reply["activity"]) == {*shares, "seconds", "memory_bytes", "device_memory_bytes"}
    assert reply["attempts"] == [{"device": "parrot:CPU", "outcome": "answered"}]


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_a_cut_answer_says_what_cut_it(phi3, source, json_too):
    def said(*arguments):
        code, _, err = phi3("run", "-m", source, "-q", *json_too, *arguments)
        assert code == 0
        return err.splitlines()

    assert said("Hello world") == []
    assert said("Hello world", "--max-new-tokens", 1) == [
        "phi3: the answer was cut off; --max-new-tokens allows longer ones"
    ]
    # A parrot repeats it, which is more than there is room for.
    assert said("Hello " * 45) == ["phi3: the answer was cut off: prompt and answer fill the context of 64 tokens"]


def test_devices_json_has_the_documented_keys(phi3):
    code, out, _ = phi3("devices", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"machine", "policy", "candidates", "refusals", "broken", "without_backend"}
    (candidate,) = [one for one in found["candidates"] if one["backend"] == "parrot"]
    assert {"device", "backend", "kind", "name", "precisions", "memory_bytes", "rank", "why"} <= set(candidate)
    assert candidate["device"] == "parrot:CPU"


def test_devices_and_plugins_name_what_is_broken(phi3, plugins):
    plugins.add("bad", changes="raise ImportError('no such DLL')")
    code, out, _ = phi3("devices")
    assert code == 0
    assert "parrot:CPU" in out
    assert "broken: bad (phi3-bad): ImportError: no such DLL" in out
    _, out, _ = phi3("devices", "--json")
    assert json.loads(out)["broken"] == [
        {"plugin": "bad", "distribution": "phi3-bad", "error": "ImportError: no such DLL"}
    ]
    _, out, _ = phi3("plugins", "--json")
    listed = json.loads(out)
    assert listed["plugins"][0]["hooks"] == ["detect", "generate", "load", "quantize"]
    assert listed["broken"][0]["plugin"] == "bad"


RED = "\x1b[31mred\x1b[0m\nsecond\x07 line\x1b]0;title\x07"
TOLD = "red second\N{REPLACEMENT CHARACTER} line"
COLOURFUL = f"""
from phi3_core import Finding, Refusal

@hookimpl
def detect(machine):
    device = Device(backend="loud", id="CPU", kind="cpu", name={RED!r}, driver={RED!r})
    return [Offer(device=device, precisions=["fp16"], notes={RED!r}), Refusal(reason={RED!r}, remedy={RED!r})]

@hookimpl
def diagnose(machine):
    return [Finding(severity="warning", message={RED!r}, remedy={RED!r})]
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["devices"], [f"cpu   {TOLD}  fp16", f"; {TOLD}", f"not usable: loud: {TOLD} -> {TOLD}"]),
        (["doctor", "--no-generate"], [f"(cpu): {TOLD}, driver {TOLD}; fp16", f"warning: loud: {TOLD} -> {TOLD}"]),
    ],
)
def test_what_a_backend_says_moves_no_cursor_and_is_one_line(run_main, plugins, arguments, words):
    plugins.add("loud", changes=COLOURFUL)
    _, out, err = run_main(*arguments)
    assert [each for each in words if each not in out] == []
    assert "\x1b" not in out + err


def test_json_has_what_a_backend_says_as_it_is(run_main, plugins):
    plugins.add("loud", changes=COLOURFUL)
    _, out, _ = run_main("devices", "--json")
    assert json.loads(out)["refusals"] == [{"backend": "loud", "reason": RED, "remedy": RED}]


def test_a_stage_that_a_backend_names_is_one_line(run_main, plugins, source):
    changes = f"""
        import logging
        @hookimpl
        def quantize(output, progress):
            logging.getLogger("phi3_core").warning({RED!r})
            progress({RED!r}, 1, 2)
            (output / "parrot.txt").write_text("fp16", encoding="utf-8")
    """
    plugins.add("loud", changes=changes)
    _, _, err = run_main("quantize", source, "--precision", "fp16")
    assert f"phi3: loud: {TOLD}\n" in err
    assert f"phi3: {TOLD} …\n" in err
    assert "\x1b" not in err


def test_devices_without_any_is_exit_code_3(home, capfd, monkeypatch, tmp_path):
    environment = {**os.environ, "PHI3_HOME": str(home)}
    code = "import sys; from phi3_core.cli import main; sys.exit(main(['devices']))"
    # An isolated interpreter that sees phi3_core and what it needs, but no distribution's metadata.
    hide = "import importlib.metadata as m; m.entry_points = lambda **_: (); "
    done = subprocess.run(
        [sys.executable, "-c", hide + code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "pip install phi3-openvino" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "COMMAND"),
        (["fly"], 2, "invalid choice: 'fly'"),
        (["run", "--temperature", "hot", "x"], 2, "--temperature"),
        (["run", "x", "--precision", "int3"], 2, "int3"),
        (["run", "x", "--option", "FOO"], 2, "expected KEY=VALUE"),
        (["run", "", "-m", "{source}"], 2, "the prompt is empty"),
        (["run", "x", "-m", "{source}", "--temperature", "-1"], 2, "temperature must be 0"),
        (["run", "x", "-m", "{source}", "--max-new-tokens", "0"], 2, "max_new_tokens"),
        (["run", "x\udcff", "-m", "{source}"], 2, "not valid Unicode: it has \\udcff"),
        (["run", "x", "-m", "{source}", "--system", "\ud800"], 2, "--system: the text is not valid Unicode"),
        (["run", "x", "-m", "{source}", "--stop", "\udcff"], 2, "--stop: the text is not valid Unicode"),
        (["run", "Hello " * 90, "-m", "{source}"], 2, "holds 64"),
        (["run", "x", "-m", "{source}", "-d", "warp"], 3, "no device fits 'warp'"),
        (["run", "x", "-m", "{source}", "-d", "parrot", "-p", "int4"], 3, "parrot:CPU runs fp16"),
        (["run", "x", "-m", "nonsense"], 4, "unknown model 'nonsense'"),
        (["run", "x", "-m", "./nowhere"], 4, "no file or folder"),
        (["run", "x", "-m", "."], 4, "finds no weights"),
        (["models", "show", "nonsense"], 4, "unknown model"),
        (["models", "rm", "nonsense"], 4, "no such model"),
    ],
)
def test_bad_input_is_one_line_with_a_hint_and_the_documented_code(phi3, source, arguments, code, words):
    got, out, err = phi3(*[argument.replace("{source}", source) for argument in arguments])
    assert (got, out) == (code, "")
    (line,) = [line for line in err.splitlines() if not line.startswith(("phi3: tiny fp16", "phi3: feathers"))]
    assert line.startswith("phi3: ")
    assert words in line
    assert line.endswith(")")


def test_a_failing_backend_is_exit_code_5_with_its_last_words(phi3, plugins, source):
    change = "@hookimpl\ndef load(artifact):\n    import os; os.write(2, b'the driver is upset\\n'); os._exit(9)\n"
    plugins.add("bad", changes=change)
    code, out, err = phi3("run", "Hello", "-m", source, "-d", "bad", "-q")
    assert (code, out) == (5, "")
    assert err.splitlines() == [
        "phi3: bad:CPU: its process died during load (exit code 9)",
        "phi3:   | the driver is upset",
    ]
    *_, err = phi3("run", "Hello", "-m", source, "-d", "bad", "-q", "--traceback")
    assert "Traceback" in err


def test_text_on_stdin_is_added_to_the_prompt(phi3, plugins, source):
    def run(stdin: bytes, *prompt: str):
        done = subprocess.run(
            command("run", *prompt, "-m", source, "-q"), input=stdin, capture_output=True, check=False, timeout=60
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert run(b"world\n", "Hello")[1].split() == ["Hello", "world"]
    assert run(b"\xef\xbb\xbfHello world", "-")[1].strip() == "Hello world"
    assert run("\ufeffHello world\r\n".encode("utf-16-le"), "-")[1].strip() == "Hello world"
    code, _, err = run(b"\xff\xfe\0", "Hello")
    assert code == 2
    assert "the text on stdin is not UTF-16-LE" in err
    assert run(b"", "-")[0] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="its streams have no modes")
def test_stdin_that_cannot_be_read_has_no_text(phi3, plugins, source, tmp_path):
    """As nohup makes it of a terminal: open for writing only."""

    def run(*arguments: object):
        with (tmp_path / "written").open("wb") as written:
            done = subprocess.run(
                command(*arguments, "-m", source, "-q"), stdin=written, capture_output=True, check=False, timeout=60
            )
        return done.returncode, done.stdout.decode().strip(), done.stderr.decode()

    assert run("run", "Hello") == (0, "Hello", "")
    for arguments in (("run", "-"), ("chat",)):
        code, _, err = run(*arguments)
        assert code == 2
        assert err.startswith("phi3: standard input cannot be read: bad file descriptor (")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--temprature", "1", "Hi"), "run has no flag --temprature (did you mean --temperature? phi3 run -"),
        (("run", "--maxnew=3", "Hi"), "run has no flag --maxnew (did you mean --max-new-tokens? phi3 run --help)"),
        (("devices", "--gpu"), "devices has no flag --gpu (phi3 devices --help)"),
        (("models", "pull", "x", "-z"), "models pull has no flag -z (phi3 models pull --help)"),
        (("run", "Hi", "there", "you"), "run does not take 'there' 'you' (put a prompt of several words in quotes; "),
        (("quantize", "a", "b"), "quantize does not take 'b' (phi3 quantize --help)"),
    ],
)
def test_what_a_command_does_not_know_is_named(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"phi3: {words}")


def test_waiting_for_stdin_is_said(phi3, plugins, source):
    arguments = command("run", "Hello", "-m", source)
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert b"from stdin until it is closed" in process.stderr.readline()
        out, err = process.communicate(b"world", timeout=60)
    assert out.split() == [b"Hello", b"world"]
    assert b"added 5 characters from stdin" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "word " * 1000), "1250"),
        (("run", "字" * 30, "--system", "four"), "31"),
        (("chat",), "None"),
    ],
)
def test_a_backend_is_told_about_how_long_the_prompt_is(phi3, plugins, source, arguments, expected):
    """When it loads the model, before the prompt is tokenized."""
    plugins.add(
        "eager",
        changes="""
            from phi3_core.errors import BackendError

            @hookimpl
            def load(artifact, prompt_tokens):
                raise BackendError(f"a prompt of {prompt_tokens} tokens")
        """,
    )
    _, _, err = phi3(*arguments, "-m", source, "-d", "eager")
    assert f"a prompt of {expected} tokens" in err


@pytest.mark.parametrize("missing", ["stdin", "stdin, sys.stdout", "stdin, sys.stdout, sys.stderr"])
def test_a_process_without_standard_streams_answers(plugins, source, missing):
    plugins.add("parrot")
    script = f"""
import sys
for name in {missing.replace("sys.", "").split(", ")!r}:
    setattr(sys, name, None)
from phi3_core.cli import main
raise SystemExit(main(["run", "Hello world", "-m", {source!r}, "-d", "parrot", "-q"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split() == ([] if "stdout" in missing else [b"Hello", b"world"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that is always full")
@pytest.mark.parametrize(
    "arguments", [("run", "Hello world", "-d", "parrot", "-q"), ("devices",), ("plugins", "--json")]
)
def test_output_that_cannot_be_written_is_one_line(phi3, source, arguments):
    model = ("-m", source) if arguments[0] == "run" else ()
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path is meant
        done = subprocess.run(
            command(*arguments, *model),
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == "phi3: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that is always full")
@pytest.mark.parametrize("kind", ["full", "reader gone"])
def test_an_answer_comes_though_nothing_can_be_said_on_stderr(plugins, source, home, kind):
    plugins.add("parrot")
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") if kind == "full" else os.fdopen(writing, "wb") as sink:  # noqa: PTH123 - no path is meant
        done = subprocess.run(
            command("run", "Hello world", "-m", source, "-d", "parrot", "--stats"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout.decode().strip()) == (0, "Hello world")


def test_models_are_listed_shown_pulled_and_removed(phi3, source, home):
    code, out, _ = phi3("models", "list", "--json")
    assert code == 0
    assert {model["name"] for model in json.loads(out)["catalogue"]} >= {"sample", "phi-3-mini-4k-instruct", "phi-4"}
    code, out, _ = phi3("models", "pull", source, "--json")
    pulled = json.loads(out)
    assert (code, pulled["backend"], pulled["precision"]) == (0, "parrot", "fp16")
    folder = pulled["path"]
    assert phi3("run", "Hello", "-m", folder)[1].strip() == "Hello"
    (entry,) = json.loads(phi3("models", "list", "--json")[1])["entries"]
    assert entry["path"] == folder
    code, out, _ = phi3("models", "show", entry["model"])
    assert code == 0
    assert "parrot fp16" in out
    assert "Phi-3-mini" in phi3("models", "show", "phi-3-mini-4k-instruct")[1]
    assert phi3("models", "rm", entry["model"])[0] == 0
    assert json.loads(phi3("models", "list", "--json")[1])["entries"] == []
    assert not Path(folder).exists()


def test_verify_names_each_damaged_file(phi3, source, home):
    folder = Path(json.loads(phi3("models", "pull", source, "--json")[1])["path"])
    name = folder.parent.name
    code, out, _ = phi3("models", "verify", name)
    assert (code, out.strip()) == (0, f"{folder}: whole")
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(b"x" + content[1:])
    (folder / "config.json").unlink()
    code, out, err = phi3("models", "verify", name)
    assert code == 4
    assert "tokenizer.json is damaged" in out
    assert "config.json is missing" in out
    assert "parrot.txt" not in out
    assert "phi3 models rm" in err


def test_a_folder_is_taken_into_the_store_under_its_name(phi3, source, home, tmp_path):
    folder = json.loads(phi3("models", "pull", source, "--json")[1])["path"]
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    code, out, _ = phi3("models", "pull", mine)
    assert (code, out.strip()) == (0, str(home / "artifacts" / "mine" / "parrot-fp16"))
    shutil.rmtree(mine)
    assert phi3("run", "Hello", "-m", "mine")[1].strip() == "Hello"


def test_chat_reads_lines_and_knows_its_commands(phi3, plugins, source, tmp_path):
    saved = tmp_path / "talk.json"
    lines = ["/help", "Hello", "/save", f"/save {saved}", f"/save {saved}", "/nonsense", "/system the end", "/system"]
    lines += ["world", "/reset", "/quit", "never said"]
    done = subprocess.run(
        command("chat", "-m", source, "-q", "--stats"),
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        encoding="utf-8",
    )
    assert done.returncode == 0
    assert done.stdout.split()[0] == "Hello"
    assert "never" not in done.stdout
    assert "/save needs a file's name" in done.stderr
    assert "unknown command /nonsense" in done.stderr
    assert "system: the end" in done.stderr
    talk = json.loads(saved.read_text(encoding="utf-8"))
    assert [message["role"] for message in talk["messages"]] == ["user", "assistant"]


def chat(source, *lines, flags=()):
    done = subprocess.run(
        command("chat", "-m", source, "-q", *flags),
        input="\n".join(lines).encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode().split("\n"), done.stderr.decode()


def test_a_conversation_that_fills_its_context_says_what_helps(phi3, plugins, source):
    lines = ["Hello " * 20, "world " * 20, "world " * 3, "Hello " * 90, "/reset", "Paris"]
    code, answers, err = chat(source, *lines)
    assert code == 0
    first, second, third, fourth = err.splitlines()
    assert first.startswith("phi3: the conversation has 6")  # and the context holds 64
    assert "holds 64, the answer included (/reset forgets" in first
    assert "--drop-oldest" in first
    assert second == (
        "the answer was cut off: the conversation fills the context of 64 tokens; /reset forgets it, and "
        "phi3 chat --drop-oldest its oldest messages"
    )
    assert third.endswith("(shorten the message)")
    assert fourth == "the conversation is forgotten"
    assert answers[-2].strip() == "Paris"


def test_a_cut_answer_blames_the_limit_that_cut_it(phi3, plugins, source):
    _, _, err = chat(source, "Hello world", flags=("--max-new-tokens", 1))
    assert err.splitlines() == ["the answer was cut off; --max-new-tokens allows longer ones"]


def test_the_oldest_messages_are_dropped_when_asked_to(phi3, plugins, source, tmp_path):
    lines = ["Hello " * 9, "world " * 9, "Paris " * 4, f"/save {tmp_path / 'talk.json'}", "Hello " * 90, "France"]
    code, answers, err = chat(source, *lines, flags=("--drop-oldest",))
    assert code == 0
    assert "the model forgets the oldest" in err
    assert "(shorten the message)" in err
    assert answers[1].startswith("Hello")  # a parrot repeats all that it reads
    assert answers[2].startswith("world")
    assert answers[3].startswith("Paris") or answers[3].startswith("France")
    talk = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert [message["content"][:5] for message in talk["messages"][::2]] == ["Hello", "world", "Paris"]


@pytest.mark.parametrize(("subcommand", "text"), [(("run", "Sum up"), "y\\n"), (("run", "-"), "y"), (("chat",), "y")])
def test_endless_text_on_stdin_is_refused(phi3, plugins, source, subcommand, text):
    endless = f"import sys\nwhile True: sys.stdout.write('{text}' * 65536)"
    with subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        arguments = command(*subcommand, "-m", source, "-q")
        done = subprocess.run(arguments, stdin=writer.stdout, capture_output=True, check=False, timeout=60)
        writer.stdout.close()
        writer.kill()
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"has more than 33.6 MB" in done.stderr


def test_text_far_beyond_the_context_is_refused_without_counting_it(phi3, plugins, source, tmp_path):
    file = tmp_path / "log"
    file.write_text("Hello world\n" * 500_000, encoding="utf-8")
    with file.open("rb") as log:
        arguments = command("run", "Sum up", "-m", source, "-q")
        done = subprocess.run(arguments, stdin=log, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert b"the prompt has far more than 64 tokens" in done.stderr


def test_a_reader_that_has_had_enough_is_no_error(phi3, plugins, source):
    change = """
        import time
        @hookimpl
        def generate(engine, request):
            for _ in range(request.max_new_tokens):
                yield request.prompt_ids[1]
                time.sleep(0.02)  # it is not to come to its end before the reader has gone
    """
    plugins.add("talker", changes=change)
    with subprocess.Popen(
        command("run", "Hello world", "-m", source, "-d", "talker", "-q"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.read(5)
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [("devices",), ("plugins",), ("models", "list"), ("top", "--once"), ("config",)])
def test_a_table_that_nobody_reads_is_no_error(plugins, home, arguments):
    plugins.add("parrot")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as sink:
        done = subprocess.run(
            command(*arguments), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b"")


PLACES = {
    "import": "there(); import time; time.sleep(600)",
    "load": "@hookimpl\ndef load(artifact):\n    there(); import time; time.sleep(600)\n",
    "prefill": "@hookimpl\ndef generate(engine, request):\n    there(); sum(range(10**12))\n    yield 1\n",
    "decode": (
        "@hookimpl\ndef generate(engine, request):\n    import time\n"
        "    while True:\n        time.sleep(0.05); yield request.prompt_ids[1]; there()\n"
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="a test cannot press Ctrl-C for one process on Windows")
@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_it_and_leaves_no_process(phi3, plugins, source, place):
    phi3("models", "pull", source, "-d", "parrot")
    there = plugins.site / "there"
    plugins.add("slow", changes=f"def there():\n    open({str(there)!r}, 'w').close()\n{PLACES[place]}")
    if place == "import":
        arguments = command("devices")
    else:
        assert phi3("models", "pull", source, "-d", "slow")[0] == 0
        arguments = command("run", "Hello world", "-m", source, "-d", "slow", "-q")
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        host = psutil.Process(process.pid)
        deadline = time.monotonic() + 60
        while not there.exists():
            assert time.monotonic() < deadline, "it does not get where it is to be interrupted"
            time.sleep(0.02)
        if place == "decode":
            assert process.stdout.read(1)
        workers = host.children(recursive=True)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        # A shell shows 130 for both. CPython ends itself by the signal if it came while a string was evaluated, such as
        # that of a namedtuple of a module that is being imported, whoever catches the exception then.
        assert code in {130, -signal.SIGINT}, process.stderr.read()
        assert process.stderr.read() == b""
        assert workers
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []


def test_what_is_quantized_can_be_copied_to_a_folder_of_ones_own_and_run_there(phi3, source, tmp_path):
    arguments = ("quantize", source, "-p", "fp16", "-d", "parrot", "--output")
    code, out, err = phi3(*arguments, tmp_path / "out")
    assert (code, out.strip()) == (0, str(tmp_path / "out")), err
    code, out, _ = phi3("run", "Hello world", "-m", tmp_path / "out", "-d", "parrot", "-q")
    assert (code, out.strip()) == (0, "Hello world")
    file = tmp_path / "out" / "phi3.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "source": "x"}), encoding="utf-8")
    code, _, err = phi3("run", "Hello world", "-m", tmp_path / "out", "-d", "parrot", "-q")
    assert code == 4
    assert "phi3.json is damaged: its source makes no sense" in err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's terminals")
@pytest.mark.parametrize("columns", [20, 40, 200])
def test_tables_and_the_progress_line_fit_the_terminal(plugins, source, columns):
    import fcntl
    import pty
    import struct
    import termios

    plugins.add("parrot")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}

    def lines(*arguments):
        with subprocess.Popen(
            command(*arguments), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
        ) as process:
            assert process.wait(60) == 0
        return os.read(ours, 2**16).decode().replace("\r\n", "\n").split("\n")

    shown = lines("devices")
    assert ("device: parrot:CPU" in shown) == (columns < 72)
    shown = lines("models", "pull", source, "-d", "parrot")
    drawn = [part.rstrip() for line in shown if "\r" in line for part in line.split("\r") if part.startswith("phi3: ")]
    assert drawn
    assert max(map(len, drawn)) < columns
    bars = [line for line in lines("bench", source, "--quick", "--repeats", "1", "-q") if "█" in line]
    assert len(bars) == 2  # of one device
    assert columns < 40 or max(map(len, bars)) < columns
    os.close(theirs)
    os.close(ours)


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from phi3_core.cli import main
sys.exit(main(["devices"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal of POSIX")
@pytest.mark.parametrize("module", ["phi3_core.cli.command", "phi3_core.errors", "argparse", "phi3_core.cli.output"])
def test_ctrl_c_during_the_first_imports_leaves_no_traceback(home, module):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
