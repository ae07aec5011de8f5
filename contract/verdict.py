"""What a check is, how it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from earmark.codecs import calls, registry
from earmark.codecs.calls import CodecError, NoMemoryError
from earmark.codecs.contract import Capability
from earmark.codecs.registry import Entry
from earmark.contract.subject import Subject
from earmark.names import nearest

if TYPE_CHECKING:
    Question = Callable[[Subject], None]

Verdict = Literal["passed", "failed", "known failure", "not asked"]


class Broken(AssertionError):  # noqa: N818 (a promise is)
    """A promise that a codec does not keep: what was expected, and what came."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}, came {came}")
        self.expected, self.came = expected, came


class NotAsked(Exception):  # noqa: N818 (an answer, not a fault)
    """A question that has no meaning for this codec, or that this machine cannot ask; the message says why."""


@dataclass(frozen=True)
class Check:
    """One question. `why` says what it matters to somebody who builds a language model; `needs`: what a codec must do.

    none  a check for codecs of any kind: tokens, sound and latents are compared, those that there are.
    """

    name: str
    question: Question
    why: str
    needs: Capability | None

    @property
    def asks(self) -> str:
        return (self.question.__doc__ or self.name).strip().splitlines()[0]


@dataclass(frozen=True)
class Result:
    """The answer to one check; `measured` is what was found on the way (a look-ahead, a bitrate).

    raised  what the codec raised, or returned that no codec may, where that ended the check.
    """

    check: Check
    verdict: Verdict
    message: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    raised: str = ""


CHECKS: dict[str, Check] = {}


def asked(why: str, needs: Capability | None = None) -> Callable[[Question], Question]:
    """Make a function a check of the contract, by its own name."""

    def enter(question: Question) -> Question:
        name = question.__name__.rstrip("_")
        CHECKS[name] = Check(name, question, why, needs)
        return question

    return enter


def judge(check: Check, subject: Subject) -> Result:
    """Ask one question; a failure that the catalogue's row declares is known, and must still be there."""
    subject.measured.clear()
    known = subject.entry.known_failures.get(check.name)
    try:
        fault, raised = _fault(check, subject)
    except NotAsked as reason:
        return Result(check, "not asked", f"{subject.name}: {reason}")
    if fault and known:
        return Result(check, "known failure", f"{known}\n{fault}", dict(subject.measured))
    if known:
        fault = (
            f"{subject.name}: {check.name}: declared a known failure in its catalogue row ({known}), and passes; "
            f"take it out of the row"
        )
    return Result(check, "failed" if fault else "passed", fault, dict(subject.measured), raised)


def _fault(check: Check, subject: Subject) -> tuple[str, str]:
    """What is wrong, in words, and the codec's error that it is; both empty where nothing is."""
    if check.needs and check.needs not in subject.entry.info.capabilities:
        raise NotAsked(f"it does not {check.needs}")
    try:
        check.question(subject)
    except NoMemoryError as error:
        return str(error), ""  # which says whose fault it is: nothing was found of the codec
    except Broken as error:
        expected, came, raised = error.expected, error.came, ""
    except CodecError as error:
        expected, came, raised = check.asks, str(error), str(error)
    else:
        return "", ""
    lines = (
        f"{subject.name}: {check.name}: {check.asks}",
        f"  expected  {expected}",
        f"  came      {came}",
        f"  given     {subject.given}",
        f"  matters   {check.why}",
    )
    return "\n".join(lines), raised


def examine(subject: Subject, only: tuple[str, ...] = ()) -> Iterator[Result]:
    """Ask a codec every check, or those that are named, in their order.

    One broken method fails twenty checks: an error that a check before ended with is told there, and here in a line.
    Raises LookupError for a check that is not there.
    """
    for name in only:
        if name not in CHECKS:
            raise LookupError(f"unknown check {name!r}{nearest(name, CHECKS)}")
    first: dict[str, str] = {}  # an error -> the check that it first ended
    for name, each in CHECKS.items():
        if not only or name in only:
            result = judge(each, subject)
            if result.raised and result.verdict == "failed" and (told := first.setdefault(result.raised, name)) != name:
                result = replace(result, message=f"{subject.name}: {name}: {each.asks}\n  came      as in {told}")
            yield result


def check(codec: str | type | Entry, device: str = "cpu", only: tuple[str, ...] = ()) -> list[Result]:
    """Run the contract on a codec or an encoder: a name of the catalogue, "package.module:Class", or a class.

    Raises CodecNotFoundError, CatalogueError or CodecError where it is not there or cannot be built.

    >>> [result.verdict for result in check("identity", only=("length", "codes"))]
    ['passed', 'not asked']
    """
    subject = subject_of(codec, device)
    subject.adapter()  # one that cannot be built is one error, and not one a check
    return [*examine(subject, only)]


def subject_of(codec: str | type | Entry, device: str) -> Subject:
    """A codec, built on a device for its contract."""
    if isinstance(codec, type):
        codec = f"{codec.__module__}:{codec.__qualname__}"
    entry = registry.find(codec) if isinstance(codec, str) else codec
    return Subject(entry, device, _builder(entry, device))


def _builder(entry: Entry, device: str) -> Callable[[], Any]:
    """A function that gives the adapter, which is built when it is first asked for."""
    built: list[Any] = []

    def adapter() -> Any:
        if not built:
            built.append(calls.load(entry, device))
        return built[0]

    return adapter
