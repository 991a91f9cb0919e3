"""Errors cross process borders whole."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mtsft_preproc import errors

PLAIN = [
    errors.MtsftError,
    errors.SettingsError,
    errors.InputError,
    errors.DamagedFileError,
    errors.TokenizerError,
    errors.TemplateError,
    errors.OutputError,
    errors.DatasetError,
    errors.RejectedDataError,
    errors.WorkerError,
]
SAMPLES: list[errors.MtsftError] = [
    *(kind(f"in.jsonl: {kind.__name__} é\udc80") for kind in PLAIN),
    errors.RecordError("bad-history", "history[2][1]", "text", "7 (int)"),
    errors.RecordError("not-json"),
]
EACH = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)


def throw(number: int) -> None:
    raise SAMPLES[number]


def assert_same(found: BaseException, error: errors.MtsftError) -> None:
    assert type(found) is type(error)
    assert found.args == error.args
    assert vars(found).keys() - {"__notes__"} == vars(error).keys()
    assert {name: getattr(found, name) for name in vars(error)} == vars(error)
    assert str(found) == str(error)


def test_every_error_is_tried() -> None:
    kinds = set(errors.__all__) - {"naming"}
    assert {type(error).__name__ for error in SAMPLES} == kinds
    assert all(issubclass(getattr(errors, name), errors.MtsftError) for name in kinds)


def test_an_error_of_the_operating_system_gets_a_path_unless_it_has_one() -> None:
    for given, said in (((28, "full"), "[Errno 28] full: 'a'"), ((2, "gone", "b"), "[Errno 2] gone: 'b'")):
        with pytest.raises(OSError, match="Errno") as caught, errors.naming(Path("a")):
            raise OSError(*given)
        assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value))) == said


@EACH
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: errors.MtsftError, protocol: int) -> None:
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)


@EACH
def test_an_error_survives_copying(error: errors.MtsftError) -> None:
    assert_same(copy.copy(error), error)
    assert_same(copy.deepcopy(error), error)


def test_every_error_comes_back_from_another_process() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        caught = [pool.submit(throw, number).exception(timeout=60) for number in range(len(SAMPLES))]
    for found, error in zip(caught, SAMPLES, strict=True):
        assert found is not None
        assert found.__cause__ is not None  # the other process' traceback, so it was raised there
        assert_same(found, error)


def test_a_record_error_says_what_was_wrong_where() -> None:
    error = errors.RecordError("bad-history", "history[2][1]", "text", "7 (int)")
    assert (error.reason, error.field, error.expected, error.got) == (
        "bad-history", "history[2][1]", "text", "7 (int)",
    )  # fmt: skip
    assert str(error) == "bad-history in 'history[2][1]': expected text, got 7 (int)"


@EACH
def test_every_error_ends_the_command_with_code_two(error: errors.MtsftError) -> None:
    assert error.exit_code == 2
