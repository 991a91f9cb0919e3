"""Fuzzing: targets that take any bytes, and what runs them.

``tests/extended/fuzz.py`` is the command, ``tests/test_fuzz_targets.py`` the bounded run of the suite, and
docs/fuzzing.md says what each target looks at.
"""
