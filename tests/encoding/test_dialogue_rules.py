"""What holds for the dialogues of every data format."""

from __future__ import annotations

import pytest
from rendering import FORMATS, encoded, opened, samples_of, trained_text

from mtsft_preproc.dialogue import REASONS, Dialogue, Message, Role, ToolCall
from mtsft_preproc.encoding.rules import check_dialogue
from mtsft_preproc.errors import RecordError

U, A, R, S = Role.USER, Role.ASSISTANT, Role.OBSERVATION, Role.SYSTEM


def call(*ids: str | None) -> Message:
    return Message(A, None, tool_calls=tuple(ToolCall("f", {}, number) for number in ids))


def result(number: str | None = None) -> Message:
    return Message(R, "it", call_id=number)


def refusal(messages: list[Message], empty_reply: str = "keep") -> tuple[str, str] | None:
    """Return the reason and the field of a refusal, or None."""
    try:
        check_dialogue(Dialogue(messages), empty_reply)
    except RecordError as error:
        found = error
    else:
        return None
    assert found.reason in REASONS
    assert found.expected
    assert found.got
    return found.reason, found.field


USER, REPLY = Message(U, "u"), Message(A, "a")
CASES: dict[str, tuple[list[Message], tuple[str, str] | None]] = {
    "plain": ([USER, REPLY], None),
    "greeting": ([REPLY, USER, REPLY], None),
    "empty": ([], ("empty-dialogue", "")),
    "nobody-answers": ([USER, USER], ("no-assistant", "")),
    "system-alone": ([Message(S, "s")], ("no-assistant", "")),
    "result-alone": ([USER, result()], ("no-assistant", "")),
    "result-first": ([result(), REPLY], ("orphan-tool-result", "messages[0]")),
    "result-behind-user": ([USER, result(), REPLY], ("orphan-tool-result", "messages[1]")),
    "result-behind-system": ([REPLY, Message(S, "s"), result()], ("orphan-tool-result", "messages[2]")),
    "result-behind-text": ([USER, REPLY, result(), REPLY], None),
    "result": ([USER, call(None), result(), REPLY], None),
    "results": ([USER, call("1", "2"), result("2"), result("1"), REPLY], None),
    "unknown-id": ([USER, call("1"), result("2"), REPLY], ("orphan-tool-result", "messages[2]")),
    "id-of-none": ([USER, call(None), result("1"), REPLY], ("orphan-tool-result", "messages[2]")),
    "id-of-an-earlier-call": ([USER, call("1"), result("1"), call("2"), result("1"), REPLY], None),
    "id-of-a-later-call": (
        [USER, call("1"), result("2"), call("2"), result("2"), REPLY],
        ("orphan-tool-result", "messages[2]"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), CASES.values(), ids=CASES)
def test_what_is_no_dialogue_is_refused(messages: list[Message], expected: tuple[str, str] | None) -> None:
    assert refusal(messages) == expected


SAYINGS: dict[str, tuple[Message, bool]] = {
    "text": (Message(A, "a"), False),
    "white-space": (Message(A, " "), False),
    "nothing": (Message(A, ""), True),
    "null": (Message(A, None), True),
    "call": (call(None), False),
    "thoughts": (Message(A, "", "hm"), False),
    "empty-thoughts": (Message(A, "", ""), True),
}


@pytest.mark.parametrize(("message", "is_empty"), SAYINGS.values(), ids=SAYINGS)
def test_which_replies_say_nothing(message: Message, is_empty: bool) -> None:
    messages = [USER, REPLY, USER, message]
    expected = ("empty-reply", "messages[3]") if is_empty else None
    assert refusal(messages, "reject") == expected
    assert refusal(messages, "keep") is None
    told = Dialogue(messages, notes=["odd"])
    for way in ("keep", "untrained"):
        checked = check_dialogue(told, way)
        assert checked.notes == (["odd", "empty-reply"] if is_empty else ["odd"])
        trained = [None, None, None, False if is_empty and way == "untrained" else None]
        assert [item.train for item in checked.messages] == trained
    # What a handler made is left as it was.
    assert told == Dialogue([USER, REPLY, USER, message], notes=["odd"])


def test_an_empty_question_is_no_empty_reply() -> None:
    assert refusal([Message(U, ""), REPLY, call(None), Message(R, ""), REPLY], "reject") is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("policy", ["assistant", "split"])
def test_an_empty_reply_may_be_kept_untrained(name: str, policy: str) -> None:
    template = opened(name)
    told = Dialogue([USER, Message(A, ""), USER, REPLY])
    found = samples_of(encoded(template, [told], empty_reply="untrained", train_on=policy))
    assert len(found) == 1
    assert trained_text(template, found[0]) == "a"
    own = template._encoder  # type: ignore[attr-defined]
    stop = own.spec.id_of("</s>" if name == "gemma" else "<|im_end|>")
    assert found[0].labels.count(stop) == 1
    kept = samples_of(encoded(template, [told], empty_reply="keep", train_on=policy))
    assert sum(sample.labels.count(stop) for sample in kept) == 2
    batch = encoded(template, [told], empty_reply="reject", train_on=policy)
    assert [entry.reason for entry in batch.rejections] == ["empty-reply"]


def test_a_record_of_empty_replies_has_nothing_to_train() -> None:
    told = Dialogue([USER, Message(A, "")])
    batch = encoded(opened("qwen"), [told], empty_reply="untrained")
    assert [entry.reason for entry in batch.rejections] == ["nothing-trained"]
    batch = encoded(opened("trl"), [told, Dialogue([USER, Message(A, ""), USER, REPLY])], train_on="split")
    assert {(entry.row, entry.turn, entry.reason) for entry in batch.rejections} == {
        (0, -1, "nothing-trained"), (1, 1, "nothing-trained"),
    }  # fmt: skip
