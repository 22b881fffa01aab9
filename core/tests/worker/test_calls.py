"""The protocol: whatever the worker and the callers do, and in whatever order, each call has exactly one end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from multiprocessing import connection as connections

from hypothesis import given, settings
from hypothesis import strategies as st
from phi3_core.worker.call import Result
from phi3_core.worker.calls import Calls
from phi3_core.worker.output import Output
from phi3_core.worker.protocol import Channel

number = st.integers(0, 5)
event = st.one_of(
    st.tuples(st.just("begin")),
    st.tuples(st.sampled_from(["id", "result", "error", "cancel", "limit", "nobody", "nonsense", "notice"]), number),
    st.tuples(st.sampled_from(["retire", "kill", "hang_up"])),
)


class Peer:
    """Calls on a pipe whose other end is this test's, with a real process beside it."""

    def __init__(self):
        ours, self.theirs = connections.Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.calls = Calls(Channel(ours), self.process, Output(self.process))
        self.ours = ours
        self.calls.kill = self.kill
        self.open = []

    def kill(self, *_):
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.ours.close()
        self.calls.stop()

    def send(self, message):
        with contextlib.suppress(OSError):
            Channel(self.theirs).send(message)

    def play(self, what, which=0):
        """Play one event; those of a call are about one of the calls that have begun."""
        number = self.open[which % len(self.open)].number if self.open else 0
        messages = {
            "id": {"of": number, "id": 7},
            "result": {"of": number, "result": None},
            "error": {"of": number, "error": {"kind": "OSError", "message": "x"}},
            "nobody": {"of": 99, "id": 1},
            "nonsense": {"of": number, "array": "x"} if which % 2 else {"id": 3},
            "notice": {"notice": "x"},
        }
        if what in messages:
            self.send(messages[what])
        else:
            getattr(self, what)(*self.open[which : which + 1])

    def begin(self, *_):
        self.open.append(self.calls.begin("generate"))

    def cancel(self, *calls):
        for call in calls:
            threading.Thread(target=self.calls.cancel, args=(call, 0.01), daemon=True).start()

    def limit(self, *calls):
        for call in calls:
            call.limit(0.01)

    def retire(self, *_):
        self.calls.retire()

    def hang_up(self, *_):
        self.theirs.close()


def ends(call):
    return [item for item in call.arrived if isinstance(item, (Result, Exception))]


@settings(max_examples=60)
@given(st.lists(event, max_size=25))
def test_each_call_has_exactly_one_end(events):
    peer = Peer()
    try:
        for each in [("begin",), *events]:
            peer.play(*each)
    finally:
        peer.kill()
    for call in peer.open:
        call.wait_for_end(10)
        assert call.ended
        # Nobody waits for one that was cancelled, and that the worker did not end.
        assert len(ends(call)) == 1 or (call.abandoned and not ends(call))
        assert ends(call) in ([], [call.arrived[-1]])
    peer.calls.join(10)
    assert not peer.calls._thread.is_alive()
