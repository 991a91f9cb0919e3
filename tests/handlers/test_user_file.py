"""Handlers of the user's own: a file that registers them, and what is wrong with one that doesn't."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mtsft_preproc.dialogue import Dialogue, Role
from mtsft_preproc.errors import RecordError, SettingsError
from mtsft_preproc.handlers import DialogueHandler, Handler, handlers
from mtsft_preproc.handlers import user_file as module_under_test
from mtsft_preproc.handlers.user_file import handler, load_user_handlers, user_file_sha256

#: The example of the README.
EXAMPLE = '''\
from mtsft_preproc.handlers import Dialogue, DialogueHandler, Message, Role, handler, text_field


@handler("tickets", "support-tickets")
class TicketHandler(DialogueHandler):
    """Support tickets: a subject, a problem, and the agent's solution."""

    keys = {"subject": "subject", "problem": "problem", "solution": "solution"}
    required = (("problem",), ("solution",))

    def dialogue(self, record):
        subject, problem, solution = (text_field(record, self.columns.get(key)) for key in self.keys)
        asked = "\\n".join(part for part in (subject, problem) if part)
        return Dialogue([Message(Role.USER, asked), Message(Role.ASSISTANT, solution or "")])
'''
MINIMAL = """\
from mtsft_preproc.handlers import Dialogue, DialogueHandler, Message, Role, handler


@handler({name!r}{aliases})
class Mine(DialogueHandler):
    keys = {{"text": {column!r}}}
    required = (("text",),)

    def dialogue(self, record):
        return Dialogue([Message(Role.USER, record[self.columns["text"]])])
"""

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process that has loaded no file, and take out what it registered."""
    monkeypatch.setattr(module_under_test, "_modules", {})
    monkeypatch.setattr(module_under_test, "_names", {})
    names, modules = set(handlers.names()), set(sys.modules)
    yield
    for name in handlers.names():
        if name not in names:
            handlers.discard(name)
    for module in set(sys.modules) - modules:
        if module.startswith("mtsft_user_handlers_"):
            del sys.modules[module]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(source, "utf-8")
        return path

    return write


def minimal(name: str = "mine", *aliases: str, column: str = "text") -> str:
    return MINIMAL.format(name=name, aliases="".join(f", {alias!r}" for alias in aliases), column=column)


def user_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("mtsft_user_handlers_")]


def made(name: str, map_keys: Mapping[str, Any] | None = None) -> DialogueHandler:
    found = handlers.get(name)(map_keys)
    assert isinstance(found, DialogueHandler)
    return found


def test_the_example_makes_a_dialogue_of_a_record(write: Write) -> None:
    assert load_user_handlers(str(write(EXAMPLE))) == ["tickets"]
    record = {"subject": "Printer", "problem": "No paper comes out.", "solution": "Open the tray.", "id": 1}
    said = [
        (message.role, message.content) for message in made("support-tickets").dialogue(record).messages
    ]
    assert said == [(Role.USER, "Printer\nNo paper comes out."), (Role.ASSISTANT, "Open the tray.")]
    renamed = made("tickets", {"problem": "text", "subject": ""}).dialogue({"text": "q", "solution": "a"})
    assert [message.content for message in renamed.messages] == ["q", "a"]
    with pytest.raises(RecordError, match="wrong-type"):
        made("tickets").dialogue({"problem": 5, "solution": "a"})


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.splitlines()) <= 15


def test_all_handlers_of_a_file_are_named_in_its_order(write: Write) -> None:
    path = write(minimal("zeta", "z") + minimal("alpha").split("\n\n\n", 1)[1])
    assert load_user_handlers(str(path)) == ["zeta", "alpha"]
    assert handlers.canonical("z") == "zeta"


def test_a_file_is_run_once_in_a_process(write: Write) -> None:
    path = write(minimal())
    assert load_user_handlers(str(path)) == ["mine"]
    first = handlers.get("mine")
    assert load_user_handlers(str(path)) == ["mine"]
    assert load_user_handlers(os.path.relpath(path)) == ["mine"]
    copied = write(minimal(), "copy.py")
    assert load_user_handlers(str(copied)) == ["mine"]
    assert handlers.get("mine") is first
    assert len(user_modules()) == 1


def test_a_changed_file_takes_the_place_of_the_earlier_one(write: Write) -> None:
    path = str(write(minimal("old", "both", column="a")))
    load_user_handlers(path)
    # As many bytes, within the same second: what Python's own cache of bytecode can't tell.
    write(minimal("new", "both", column="b"))
    assert load_user_handlers(path) == ["new"]
    assert "old" not in handlers.names()
    assert made("both").dialogue({"a": "1", "b": "2"}).messages[0].content == "2"
    assert len(user_modules()) == 1
    write(minimal("old", "both", column="a"))
    assert load_user_handlers(path) == ["old"]
    assert made("both").dialogue({"a": "1", "b": "2"}).messages[0].content == "1"


def test_a_change_that_fails_leaves_the_earlier_handlers(write: Write) -> None:
    path = str(write(minimal("old", "alias")))
    load_user_handlers(path)
    before = handlers.get("alias")
    write(minimal("new") + "1 / 0\n")
    with pytest.raises(SettingsError, match="ZeroDivisionError"):
        load_user_handlers(path)
    assert handlers.get("alias") is before
    assert "new" not in handlers.names()
    write(minimal("old", "alias"))
    assert load_user_handlers(path) == ["old"]
    assert handlers.get("old") is before
    assert len(user_modules()) == 1


def test_the_classes_pickle(write: Write) -> None:
    path = write(minimal() + "\n\nclass Other:\n    pass\n")
    load_user_handlers(str(path))
    cls = handlers.get("mine")
    assert pickle.loads(pickle.dumps(cls)) is cls
    copied = pickle.loads(pickle.dumps(made("mine", {"text": "words"})))
    assert type(copied) is cls
    assert copied.columns == {"text": "words"}


def test_an_object_reaches_a_process_that_has_loaded_the_file(write: Write, tmp_path: Path) -> None:
    path = write(minimal())
    load_user_handlers(str(path))
    (tmp_path / "object").write_bytes(pickle.dumps(made("mine", {"text": "words"})))
    script = (
        "import pickle, sys\n"
        "from mtsft_preproc.handlers.user_file import load_user_handlers\n"
        "load_user_handlers(sys.argv[1])\n"
        "print(pickle.load(open(sys.argv[2], 'rb')).dialogue({'words': 'hi'}).messages[0].content)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "object")]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "hi\n"


def test_a_file_may_hold_dataclasses_and_subclasses_of_known_handlers(write: Write) -> None:
    path = write(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from mtsft_preproc.handlers import handler, handlers\n"
        "@dataclass\n"
        "class Pair:\n"
        "    left: str\n"
        "@handler('loud')\n"
        "class Loud(handlers.get('alpaca')):\n"
        "    def dialogue(self, record):\n"
        "        found = super().dialogue(record)\n"
        "        found.messages[-1].content = Pair(found.messages[-1].content.upper()).left\n"
        "        return found\n"
    )
    assert load_user_handlers(str(path)) == ["loud"]
    record = {"instruction": "q", "output": "a"}
    assert [message.content for message in made("loud").dialogue(record).messages] == ["q", "A"]


def test_the_annotations_of_a_file_are_its_own_affair(write: Write) -> None:
    """This program's ``from __future__ import annotations`` is not the file's."""
    load_user_handlers(str(write(minimal() + "\n\ndef double(x: int) -> int:\n    return 2 * x\n")))
    assert vars(sys.modules[user_modules()[0]])["double"].__annotations__ == {"x": int, "return": int}


BODY = "    def dialogue(self, record):\n        raise NotImplementedError\n"
IMPORT = "from mtsft_preproc.handlers import DialogueHandler, PairHandler, TextHandler, Handler, handler\n"
CLASS = IMPORT + "@handler('x')\nclass Mine"

BROKEN: dict[str, tuple[str, str]] = {
    "nothing": ("", "it registers no handler; expected a class under @handler"),
    "undecorated": (
        IMPORT + "class Mine(DialogueHandler):\n    keys = {}\n    required = ()\n" + BODY,
        "it registers no handler",
    ),
    "syntax": ("a = 1\nb = = 2\n", "line 2: SyntaxError: "),
    "raises": ("import os\n\nraise KeyError('x')\n", "line 3: KeyError: 'x'"),
    "raises-in-a-function": ("def f():\n    return 1 / 0\n\nf()\n", "line 2: ZeroDivisionError: "),
    "import": ("\nimport no_such_module_at_all\n", "line 2: ModuleNotFoundError: No module named"),
    "exits": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "null-byte": ("a = '\0'\n", "null bytes"),
    "taken-name": (minimal("MOSSHandler"), "'MOSSHandler' is registered twice"),
    "taken-alias": (minimal("new", "sharegpt"), "line 4: handler 'sharegpt' is registered twice; take"),
    "name-of-an-alias": (minimal("alpaca"), "'alpaca' is registered twice"),
    "twice-in-a-file": (minimal("one") + minimal("one"), "'one' is registered twice"),
    "reserved": (minimal("auto"), "'auto': expected a name, but none of auto, Llama"),
    "reserved-alias": (minimal("new", "llama-factory"), "'llama-factory': expected a name, but none of"),
    "empty-name": (minimal(" "), "' ': expected a name"),
    "no-parentheses": (
        IMPORT + "@handler\nclass Mine(DialogueHandler):\n    pass\n",
        'class Mine: write @handler\\("its-name"\\)',
    ),
    "no-class": (
        IMPORT + "@handler('x')\ndef f(record):\n    pass\n",
        "handler 'x': f is no class of the kind DialogueHandler",
    ),
    "no-handler": (CLASS + ":\n    pass\n", "Mine is no class of the kind DialogueHandler"),
    "bare-handler": (
        CLASS + "(Handler):\n    keys = {}\n    required = ()\n",
        "Mine is no class of the kind DialogueHandler, PairHandler, TextHandler",
    ),
    "all-missing": (
        CLASS + "(DialogueHandler):\n    pass\n",
        "line 2: handler 'x': class Mine lacks dialogue\\(\\), keys, required$",
    ),
    "pair-missing": (
        CLASS + "(PairHandler):\n    keys = {}\n",
        "class Mine lacks pair\\(\\), required$",
    ),
    "texts-missing": (
        CLASS + "(TextHandler):\n    keys = {}\n    required = ()\n",
        "class Mine lacks datasets\\(\\), texts\\(\\)$",
    ),
    "keys-of-a-list": (
        CLASS + "(DialogueHandler):\n    keys = ['a']\n    required = ()\n" + BODY,
        "handler 'x': keys: expected the column of the data",
    ),
    "keys-of-numbers": (
        CLASS + "(DialogueHandler):\n    keys = {'a': 1}\n    required = ()\n" + BODY,
        "handler 'x': keys: expected the column",
    ),
    "required-without-a-comma": (
        CLASS + "(DialogueHandler):\n    keys = {'a': 'a'}\n"
        "    required = (('a'))\n" + BODY,
        "handler 'x': required: expected groups of keys",
    ),
    "required-of-texts": (
        CLASS + "(DialogueHandler):\n    keys = {'a': 'a'}\n"
        "    required = ('a',)\n" + BODY,
        "required: expected groups of keys .* out of a, summary; got \\('a',\\)",
    ),
    "required-of-no-key": (
        CLASS + "(DialogueHandler):\n    keys = {'a': 'a'}\n"
        "    required = (('b',),)\n" + BODY,
        "required: expected groups of keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_good_is_refused_and_leaves_nothing(write: Write, case: str) -> None:
    source, reason = BROKEN[case]
    path, before = str(write(source)), handlers.names()
    with pytest.raises(SettingsError, match=reason) as caught:
        load_user_handlers(path)
    assert str(caught.value).startswith(f"--handler-path: {path}")
    assert handlers.names() == before
    assert user_modules() == []


@pytest.mark.parametrize("ask", [load_user_handlers, user_file_sha256])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, ask: Callable[[str], Any]) -> None:
    with pytest.raises(
        SettingsError, match=r"^--handler-path: .*gone.py: No such file .*; expected a Python"
    ):
        ask(str(tmp_path / "gone.py"))
    with pytest.raises(SettingsError, match=r"^--handler-path: .*: Is a directory; expected a Python file"):
        ask(str(tmp_path))


def test_the_hash_is_that_of_the_bytes(write: Write) -> None:
    path = write("a = 1\n")
    assert user_file_sha256(str(path)) == hashlib.sha256(b"a = 1\n").hexdigest()


def test_the_decorator_works_without_a_file_and_hands_the_class_back() -> None:
    @handler("direct", "at-once")
    class Direct(DialogueHandler):
        keys = {"text": None}  # noqa: RUF012
        required = ()

        def dialogue(self, record: Mapping[str, Any]) -> Dialogue:
            raise NotImplementedError

    found: type[Handler] = handlers.get("at-once")
    assert found is Direct
    with pytest.raises(SettingsError, match=r"^handler 'direct' is registered twice"):
        handler("direct")(Direct)
