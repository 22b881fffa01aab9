"""What a report does not tell, in all the forms in which it may appear."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

import pytest
from phi3_core.doctor.anonymous import anonymous
from phi3_core.doctor.privacy import Identity, is_secret, server, this_identity, without_secrets

USERS = ("a", "Ann Lee", "ANN", "ann.lee", "José Núñez", "dev", "C++")
LINUX = Identity(
    home="/home/ann",
    store="/data/ann/phi3",
    users=("ann", "Ann Lee"),
    hosts=("annbox", "pc", "proxy.corp.example"),
    secrets=("hunter2-hunter2",),
)


def windows(user):
    return Identity(home=rf"C:\Users\{user}", store=rf"C:\Users\{user}\AppData\Local\phi3", users=(user,))


@pytest.mark.parametrize("user", USERS)
def test_the_home_folder_of_windows_in_every_form(user):
    home = rf"C:\Users\{user}"
    forms = {
        rf"cannot open {home}\x.txt": r"cannot open ~\x.txt",
        rf"cannot open {home.upper()}\x": r"cannot open ~\x",
        f"'{home}': no": "'~': no",
        repr(rf"{home}\x"): r"'~\\x'",
        json.dumps(rf"{home}\x"): r'"~\\x"',
        home.replace("\\", "/") + "/x": "~/x",
        rf"\\?\{home}\x": r"~\x",
        f"/mnt/c/Users/{user}/x": "~/x",
        f"/c/Users/{user}/x": "~/x",
        rf"{home}\AppData\Local\phi3\artifacts": r"<store>\artifacts",
        f"file:///C:/Users/{user.replace(' ', '%20')}/x": "file:///C:/Users/<user>/x",
    }
    assert {text: anonymous(text, windows(user)) for text in forms} == forms


@pytest.mark.parametrize("user", USERS)
def test_a_name_in_other_paths(user):
    forms = {
        rf"D:\backup\{user}\x": r"D:\backup\<user>\x",
        rf"\\server\share\{user.lower()}": r"\\server\share\<user>",
        f"/media/{user}/disk": "/media/<user>/disk",
        f"CORP\\{user}": r"CORP\<user>",
        f"user={user} is unknown": "user=<user> is unknown",
    }
    assert {text: anonymous(text, windows(user)) for text in forms} == forms


def test_other_people_s_home_folders():
    forms = {
        r"C:\Users\Bob Smith\x and more": r"C:\Users\<user>\x and more",
        r"C:\Users\BOBSMI~1\x": r"C:\Users\<user>\x",
        "/home/bob is full, /tmp/x is not": "/home/<user> is full, /tmp/x is not",
        "/Users/bob/x": "/Users/<user>/x",
        "/home/annabel/x": "/home/<user>/x",
    }
    assert {text: anonymous(text, LINUX) for text in forms} == forms


def test_names_in_sentences_but_not_in_words():
    forms = {
        "permission denied for ANN": "permission denied for <user>",
        "Ann Lee's device": "<user>'s device",
        "the banner of annual planning": "the banner of annual planning",
        "no device of ann-laptop": "no device of <user>-laptop",
    }
    assert {text: anonymous(text, LINUX) for text in forms} == forms
    short = Identity(home="/home/a", users=("a", "dev"))
    text = "a device of a GPU, /dev/dri/renderD128, has a driver"
    assert anonymous(text, short) == text


def test_hosts_and_servers():
    forms = {
        "annbox.corp.example:8080 does not answer": "<host>:8080 does not answer",
        "http://annbox/x": "http://<host>/x",
        r"\\pc\share": r"\\<host>\share",
        "a pc is slow": "a pc is slow",
        "cannot reach proxy.corp.example": "cannot reach <host>",
        "https://other.corp.example/simple": "https://<host>/simple",
        "https://www.nvidia.com/en-us/drivers/": "https://www.nvidia.com/en-us/drivers/",
        "hf://owner/name": "hf://owner/name",
        "http://localhost:80 and http://10.1.2.3/": "http://localhost:80 and http://<host>/",
    }
    assert {text: anonymous(text, LINUX) for text in forms} == forms


def test_secrets():
    forms = {
        "401 for hf_abcdefghijkl": "401 for <secret>",
        "Authorization: Bearer abc.def-ghijk": "Authorization: Bearer <secret>",
        "http://ann:pw@proxy.corp.example/": "http://<secret>@<host>/",
        "https://huggingface.co/x?X-Amz-Signature=ab12&y=1": "https://huggingface.co/x?X-Amz-Signature=<secret>&y=1",
        "it is hunter2-hunter2": "it is <secret>",
        "Authorization: Basic Ym9iOnBAc3M=": "Authorization: Basic <secret>",
        "{'password': 'letmein', 'x-api-key': 'k123'}": "{'password': '<secret>', 'x-api-key': '<secret>'}",
        "ask ann.lee@corp.example": "ask <email>",
        "driver 32.0.101.6129, 8086:7d1d": "driver 32.0.101.6129, 8086:7d1d",
    }
    assert {text: anonymous(text, LINUX) for text in forms} == forms


@pytest.mark.parametrize("secret", ['hf_ab"c\\d/e+f', "pa ss&w<o>rd%", "gehéim-wört", "$mine[1]*"])
@pytest.mark.parametrize(
    "form",
    [
        str,
        repr,
        ascii,
        json.dumps,
        quote,
        quote_plus,
        lambda text: quote(text, safe="").lower(),
        lambda text: repr({"key": text}),
    ],
)
def test_a_secret_in_every_form_in_which_it_is_quoted(secret, form):
    environment = {"HF_TOKEN": secret}
    said = anonymous(f"401 for {form(secret)}!", this_identity(environment))
    assert "<secret>" in said
    assert "c\\d" not in said
    assert secret[3:6] not in said


@pytest.mark.parametrize(
    "url",
    [
        "http://bob:p@ss/w'rd#1@proxy.corp.example:3128",
        "http://bob:p%40ss%2Fw%27rd%231@proxy.corp.example:3128/",
        "bob:p@ss/w'rd#1@10.0.0.7:3128",
        "socks5h://bob:p@ss/w'rd#1@[fe80::1]:1080/x?y=1",
    ],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "PIP_INDEX_URL"])
def test_a_password_of_a_proxy_may_have_any_characters(url, name):
    identity = this_identity({name: url})
    for text in (url, f"cannot connect to {url!r}", f"bad password p@ss/w'rd#1 of {name}"):
        said = anonymous(text, identity)
        assert "ss" not in said.replace("password", "").replace("<secret>", "")
        assert "rd" not in said.replace("password", "")
        assert not {"corp", "10.0.0.7", "fe80"} & set(re.split(r"[/@:.\[\]]+", said))


def test_what_is_no_secret_stays():
    texts = (
        "https://huggingface.co/a/b@main",
        "http://localhost:80/a@b",
        "PHI3_API_KEY=(set), PHI3_MAX_NEW_TOKENS=4096",
        "a driver@2 needs a key of 4 bytes",
    )
    for text in texts:
        assert anonymous(text, LINUX) == text


def test_all_strings_of_a_document_and_nothing_else():
    content = {"a": ["/home/ann/x", {"b": ("/home/ann",)}], "ann": 1, "c": None, "d": 1.5}
    assert anonymous(content, LINUX) == {"a": ["~/x", {"b": ["~"]}], "ann": 1, "c": None, "d": 1.5}


def test_settings_that_are_secrets():
    secret = {"PHI3_API_KEY": "x", "HF_TOKEN": "y", "options.acme.PASSWORD": "z", "PHI3_EMPTY_TOKEN": ""}
    open_ = {"PHI3_TOKEN_LIMIT": "5", "limits.token": "5", "PHI3_MAX_NEW_TOKENS": "9", "HF_TOKEN_PATH": "/x"}
    assert without_secrets({**secret, **open_}) == {
        **dict.fromkeys(secret, "(set)"),
        "PHI3_EMPTY_TOKEN": "",
        **open_,
    }
    assert not is_secret("MONKEY")


def test_the_identity_is_that_of_the_account_and_the_environment(home, monkeypatch):
    environment = {
        "USERNAME": "Ann Lee",
        "COMPUTERNAME": "ANNBOX",
        "HTTPS_PROXY": "http://ann:pw@proxy.corp.example:8080",
        "HF_ENDPOINT": "https://huggingface.co",
        "HF_TOKEN": "hunter2-hunter2",
        "SHORT_TOKEN": "x",
    }
    found = this_identity(environment)
    assert found.store == str(home)
    assert {"Ann Lee", "Ann", "Lee"} <= set(found.users)
    assert {"ANNBOX", "proxy.corp.example"} <= set(found.hosts)
    assert "huggingface.co" not in found.hosts
    assert found.secrets == ("hunter2-hunter2", "ann:pw@")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("http://u:p@h.example:80/x", "h.example"),
        ("h.example:80", "h.example"),
        ("[::1]:80", ""),
        ("http://[::1]:80", "[::1]"),
        ("http://[", ""),
        ("/dev/null", ""),
        ("on", ""),
        ("..", ""),
    ],
)
def test_the_server_of_a_variable(text, name):
    assert server(text) == name


@pytest.mark.parametrize("odd", ["", ".", "/", "C:\\", "~", "x" * 300, "a\nb", "\udc80", "\\", "[", "(?"])
def test_odd_names_are_no_error(odd):
    identity = Identity(home=odd, store=odd, users=(odd,), hosts=(odd,), secrets=())
    assert isinstance(anonymous(f"text {odd} /x/{odd}/y", identity), str)
