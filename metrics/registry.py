"""The registry of metrics, read from `registry.yaml`, and `compute`, the one call for any that looks at sound.

Importing this costs neither torch nor scipy: a row names its function, which is imported when it is first called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from earmark import yamls
from earmark.data.audio import resample
from earmark.hub import cached_revision, fetch_command, is_cached
from earmark.metrics.checks import Array, MetricError, check_pair, require, to_numpy
from earmark.names import nearest

__all__ = ["METRICS", "Backend", "Metric", "MetricError", "compute", "find"]

ANY_AUDIO = ("speech", "music", "sound", "general")
_HERE = Path(__file__).parent

# What a metric's function is given, clip by clip:
#   pair        reference and estimate, float [..., L]
#   estimate    the estimate alone; `of` says of what else it is given
#   transcript  what was spoken and what a recogniser heard, as text
#   bits        the bits of the clip, its samples, its sample rate
# and for all clips at once:
#   codes       the codes of every clip, and the codec's Info
#   info        the codec's Info
#   embedding   the embeddings of all references and of all estimates, [N, D]
#   procedure   what a suite's own procedure found (a sweep, a trained model); such a row has no function
Kind = Literal["pair", "estimate", "transcript", "bits", "codes", "info", "embedding", "procedure"]
Of = Literal["estimate", "original", "increase"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(_Strict):
    """Weights on the hub. files: what must be here of them; by default config and safetensors."""

    repo: str
    revision: str | None = None
    files: tuple[str, ...] = ()


class Needs(_Strict):
    """What must be here: packages by the names that they are imported by, weights; and what installs the packages."""

    packages: tuple[str, ...] = ()
    install: str = ""
    checkpoint: Checkpoint | None = None

    def missing(self) -> str | None:
        """The command that makes it ready; None where it is. Neither packages nor weights are imported."""
        absent = [package for package in self.packages if find_spec(package) is None]
        if absent:
            return f"pip install {self.install or ' '.join(absent)}"
        wanted = self.checkpoint
        if wanted and not is_cached(wanted.repo, wanted.revision, wanted.files):
            return fetch_command(wanted.repo, wanted.revision)
        return None

    @property
    def version(self) -> str:
        """What results depend on: the packages and the checkpoint, as they are here."""
        installed = [f"{name} {_installed(_distribution(name))}" for name in self.packages]
        wanted = self.checkpoint
        revision = wanted and (wanted.revision or cached_revision(wanted.repo, wanted.files))
        return " ".join([*installed, *([str(revision)] if wanted else [])])


class Backend(Needs):
    """A model that a metric is measured with: the class that wraps it, and what must be here for it."""

    name: str
    function: str

    def source_file(self) -> str:
        """The file of that class, found without importing what it imports."""
        return _source_file(self.function)

    def load(self) -> Any:
        """The model, built once a process."""
        return _model(self)


class Metric(_Strict):
    """One metric: what a score's number means, and the function that yields it.

    function: "module:function" in this package. rate: Hz at which it is evaluated; None is the rate of the codec.
    best: the value of a perfect match; None where the definition has none. domains: where it was validated; elsewhere
    it runs and its scores are flagged. library: the distribution whose version can move the value. needs_rate: the
    function is told the sample rate. symmetric: swapping the pair changes nothing. aligned: the codec's delay is
    removed first. native: a twin at the codec's own rate, for codecs of 32 kHz and more. heavy: takes so long that
    the quick preset gives it fewer clips. needs: what not every installation has. of: what is measured: the estimate,
    the original alone, or the increase from one to the other. variants: of a procedure, a regular expression of what
    the names of its scores add to the row's.
    """

    name: str
    function: str = ""
    unit: str
    higher_is_better: bool
    best: float | None
    rate: int | None = None
    domains: tuple[str, ...] = ANY_AUDIO
    library: str
    source: str
    kind: Kind = "pair"
    needs_rate: bool = False
    symmetric: bool = False
    aligned: bool = False
    native: bool = False
    heavy: bool = False
    needs: Needs = Needs()
    model: Backend | None = None
    of: Of = "estimate"
    variants: str = ""

    @property
    def backend(self) -> str:
        """Library and installed version, such as 'pesq-0.0.4', as recorded with each score."""
        return f"{self.library}-{_installed(self.library)}"

    def missing(self) -> str | None:
        """The command that makes this metric ready here; None where it is."""
        return (self.model or self.needs).missing()

    @property
    def base(self) -> str:
        """The name of the metric of the estimate, from which one of the original and of the increase is made."""
        return self.name.removesuffix(f"_{self.of}")

    def implementation(self) -> Callable[..., Any]:
        """Import and return the function that the row names."""
        module, function = self.function.split(":")
        return getattr(import_module(f"earmark.metrics.{module}"), function)

    def source_file(self) -> str:
        """The file of that function, found without importing what it imports."""
        return _source_file(self.function)

    def load(self) -> Callable[..., Any]:
        """The function as it is called; of a pairwise metric of a backend, with the backend's model."""
        found = self.implementation()
        return functools.partial(found, backend=self.model.load()) if self.model and self.kind == "pair" else found


class _Row(Metric):
    """A row of the file: a metric, or several that share all but these."""

    twins: tuple[Literal["aligned", "native"], ...] = ()
    backends: Literal["asr", "speaker"] | None = None
    of: tuple[Of, ...] = ("estimate",)  # type: ignore[assignment]

    def metrics(self) -> Iterator[Metric]:
        """Each metric that the row stands for."""
        kept = self.model_dump(exclude={"twins", "backends", "of", "name", "model"})
        for backend in backends(self.backends) if self.backends else (None,):
            name = f"{self.name}_{backend.name}" if backend else self.name
            for of in self.of:
                yield Metric(**kept, model=backend, of=of, name=name if of == "estimate" else f"{name}_{of}")
        for twin in self.twins:
            changed = {"aligned": True} if twin == "aligned" else {"native": True, "rate": None}
            yield Metric(**kept | changed, name=f"{self.name}_{twin}")


@functools.cache
def backends(kind: str) -> tuple[Backend, ...]:
    """The backends of a kind, the default first."""
    found = yamls.read((_HERE / "backends.yaml").read_text(encoding="utf-8"))[kind]
    return tuple(Backend(name=name, **raw) for name, raw in found.items())


def optional() -> dict[str, str | None]:
    """What not every installation has, by name (of a backend, or of a metric): the command that gets it, or None."""
    found: dict[str, str | None] = {}
    for metric in METRICS.values():
        if metric.model or metric.heavy or metric.needs.packages:
            name = metric.model.name if metric.model else metric.base
            found[name] = found[name] if name in found else metric.missing()
    return found


def _read() -> dict[str, Metric]:
    rows = yamls.read((_HERE / "registry.yaml").read_text(encoding="utf-8"))
    found = [metric for name, raw in rows.items() for metric in _Row(name=name, **raw).metrics()]
    return {metric.name: metric for metric in found}


METRICS: dict[str, Metric] = _read()


def _source_file(function: str) -> str:
    return str(_HERE / f"{function.partition(':')[0]}.py")


@functools.cache
def _installed(distribution: str) -> str:
    return version(distribution)


def _distribution(package: str) -> str:
    """The name by which pip knows a package that is imported as this."""
    return _distributions().get(package, [package])[0]


@functools.cache  # looking through all that is installed takes a third of a second
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


@functools.cache
def _model(backend: Backend) -> Any:
    module, name = backend.function.split(":")
    options = {"checkpoint": backend.checkpoint} if backend.checkpoint else {}
    return getattr(import_module(f"earmark.metrics.{module}"), name)(**options)


def find(name: str) -> Metric:
    """The row of a metric; an unknown name is a ValueError that suggests the nearest ones.

    >>> find("pesq_wb").unit
    'MOS-LQO'
    """
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}{nearest(name, METRICS)}")
    return METRICS[name]


def compute(name: str, reference: Array, estimate: Array, sample_rate: int) -> np.ndarray:
    """Score each clip of a batch with one pairwise metric; both sides are first resampled to the metric's own rate.

    reference, estimate: float [B, L], numpy or torch, of one length, at sample_rate Hz. Returns float64 [B].
    Metrics that judge the estimate alone (`kind: estimate`) do not look at the reference.
    Raises ValueError for a wrong shape, dtype, name or kind; MetricError, naming the clip, where there is no score.

    >>> compute("mse", np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]), 16_000)
    array([0.5])
    """
    metric = find(name)
    if metric.kind not in ("pair", "estimate"):
        raise ValueError(f"{name} is not measured on a pair of waveforms but on {metric.kind}; see {metric.function}")
    if reference.ndim != 2:
        raise ValueError(
            f"reference is {tuple(reference.shape)}; expected [B, L]: one row a clip, channels mixed first"
        )
    check_pair(reference, estimate)
    rate = metric.rate or sample_rate
    if rate != sample_rate:
        reference, estimate = _resampled(reference, sample_rate, rate), _resampled(estimate, sample_rate, rate)
    values = np.asarray(to_numpy(_values(metric, reference, estimate, rate)), dtype=np.float64)
    require(~np.isnan(values), "the result is not a number, as of sound far beyond full scale")
    return values


def _values(metric: Metric, reference: Array, estimate: Array, rate: int) -> Array:
    """The metric's function on what its kind takes."""
    function, told = metric.load(), {"sample_rate": rate} if metric.needs_rate else {}
    if metric.kind == "estimate":
        wanted = {"estimate": [estimate], "original": [reference], "increase": [reference, estimate]}[metric.of]
        found = [to_numpy(function(wav, **told)) for wav in wanted]
        return found[-1] - found[0] if metric.of == "increase" else found[0]
    if not metric.aligned:
        return function(reference, estimate, **told)
    from earmark.metrics.align import aligned

    pairs = aligned(reference, estimate, rate)  # one by one: each clip has a delay of its own, so another length
    return np.concatenate([to_numpy(function(*pair, **told)) for pair in pairs])


def _resampled(wav: Array, from_hz: int, to_hz: int) -> Array:
    """Resample [B, L] on the CPU with the one resampler; a tensor goes back to where it came from."""
    resampled = resample(to_numpy(wav), from_hz, to_hz)
    return resampled if isinstance(wav, np.ndarray) else wav.new_tensor(resampled)
