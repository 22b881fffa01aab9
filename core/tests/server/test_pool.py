"""The life of a server's models: which ones there are, when they are loaded, and when they go."""

from __future__ import annotations

import shutil
import threading

import pytest
from batching import wait_until
from phi3_core.errors import ModelError, UsageError
from phi3_core.models.ref import look_up
from phi3_core.server.offers import Offers
from phi3_core.store.store import Store
from serving_toy import SLOW, chat, events, running


@pytest.fixture(scope="module")
def other(place):
    """Another model."""
    shutil.copytree(place / "tiny", place / "other")
    return place / "other"


def loaded(server):
    return [model["model"] for model in server.models()]


def test_another_model_is_loaded_when_it_is_asked_for_and_once(place, other):
    with running(str(place / "tiny"), place / "log", models=(str(place / "tiny"), str(other))) as server:
        before = len(server.notes("load"))
        assert [model["id"] for model in server.ask("GET", "/v1/models")[1]["data"]][:2] == ["tiny", "other"]
        assert loaded(server) == ["tiny"]
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(server.chat(model="other")), daemon=True) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [status for status, _ in answers] == [200] * 3
        assert answers[0][1]["model"] == "other"
        assert len(server.notes("load")) == before + 1
        assert sorted(loaded(server)) == ["other", "tiny"]
        assert server.chat(model=str(other))[0] == 200  # as it was typed at the start


def test_what_is_in_the_store_can_be_asked_for_and_no_folder(place, other):
    shutil.copytree(other, place / "unnamed")
    with running(str(place / "tiny"), place / "log"):
        stored = look_up(str(place / "tiny"), Store()).store_name
    with running(str(other), place / "log") as server:
        names = [model["id"] for model in server.ask("GET", "/v1/models")[1]["data"]]
        assert names[0] == "other"
        assert stored in names
        before = len(server.notes("load"))
        for name in (place / "unnamed", place / "tiny", "unnamed", "tiny", f"../{stored}", f"{stored}/"):
            assert server.chat(model=str(name))[0] == 404
        assert len(server.notes("load")) == before
        assert server.chat(model=stored)[0] == 200
        assert len(server.notes("load")) == before + 1


def test_without_room_the_idle_model_goes_and_one_in_use_stays(place, other):
    both = (str(place / "tiny"), str(other))
    with running(str(place / "tiny"), place / "log", models=both, available=lambda: 0) as server:
        assert server.chat(model="other")[0] == 200
        assert loaded(server) == ["other"]
        response = server.send("POST", "/v1/chat/completions", chat(model="other", stream=True, max_tokens=SLOW))
        next(events(response))
        status, answer = server.chat(model="tiny")
        assert (status, answer["error"]["code"]) == (503, "no_memory")
        *_, last = events(response)
        assert last["choices"][0]["finish_reason"] == "length"
        wait_until(lambda: server.chat(model="tiny")[0] == 200)
        assert loaded(server) == ["tiny"]


def test_an_idle_model_goes_after_a_time_and_comes_back(place):
    with running(str(place / "tiny"), place / "log", keep_alive_s=0.3) as server:
        response = server.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=SLOW))
        *_, last = events(response)  # takes a second: a model in use stays
        assert last["choices"][0]["finish_reason"] == "length"
        wait_until(lambda: loaded(server) == [])
        assert server.ask("GET", "/health")[0] == 200
        assert server.chat()[0] == 200
        assert loaded(server) == ["tiny"]


def test_a_model_that_is_kept_for_no_time_answers_who_has_waited_for_it(place):
    """Whoever it is loaded for begins to use it later than it is there."""
    with running(str(place / "tiny"), place / "log", keep_alive_s=0.0) as server:
        wait_until(lambda: loaded(server) == [])
        before = len(server.notes("load"))
        assert server.chat()[0] == 200
        assert len(server.notes("load")) == before + 1
        wait_until(lambda: loaded(server) == [])


@pytest.mark.parametrize(
    ("name", "said"), [("tony", "did you mean tiny?"), ("TINY", "did you mean tiny?"), ("gpt-4", "/v1/models lists")]
)
def test_an_unknown_model_is_told_from_what_was_meant(server, name, said):
    status, answer = server.chat(model=name)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert said in answer["error"]["message"]


def test_a_model_that_cannot_be_loaded_any_more_is_an_error_without_its_folder(place):
    gone = place / "gone"
    shutil.copytree(place / "tiny", gone)
    with running(str(place / "tiny"), place / "log", models=(str(place / "tiny"), str(gone))) as server:
        shutil.rmtree(gone)
        status, answer = server.chat(model="gone")
        assert (status, answer["error"]["code"]) == (503, "model_unavailable")
        assert str(place) not in answer["error"]["message"]
        assert server.chat()[0] == 200


def test_two_models_of_one_name_and_unknown_ones_are_refused_at_the_start(place, tmp_path):
    shutil.copytree(place / "tiny", tmp_path / "tiny")
    with pytest.raises(UsageError, match="two models are called tiny"):
        Offers([str(place / "tiny"), str(tmp_path / "tiny")], Store())
    with pytest.raises(ModelError, match="unknown model"):
        Offers([str(place / "tiny"), "nonsense"], Store())
    assert Offers([str(place / "tiny")] * 2, Store()).names().count("tiny") == 1
