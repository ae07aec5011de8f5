"""The contract: what every codec and every encoder must keep, as checks that take a codec and answer in words.

`suites/test_contract.py` asks them as tests, `earmark check` and `earmark.check` ask them of one codec. A check is a
function of a `Subject` (the codec, built on a device); it raises `Broken` with what it expected and what came, or
`NotAsked` where the question has no meaning. Nothing needs data: the sounds are made here.

Importing this imports neither torch nor any codec.
"""

# The checks are asked in this order.
# isort: off
from earmark.contract import lengths, tokens, inputs, sameness, streaming, precision, process, state  # noqa: F401

# isort: on
from earmark.contract.subject import Subject
from earmark.contract.verdict import CHECKS, Broken, NotAsked, Result, check, examine, judge

__all__ = ["CHECKS", "Broken", "NotAsked", "Result", "Subject", "check", "examine", "judge"]
