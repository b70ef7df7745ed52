"""What an inversion returns: codes, residuals, a status per sample, a report per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preimage.errors import extra
from preimage.matrix import Array, Flags, Integers
from preimage.network import Network
from preimage.notebook import inversion_html
from preimage.plot import image_grid


class Status(StrEnum):
    """How the inversion of one sample ended. ``message`` says what to do about it."""

    SOLVED = "solved"
    ABOVE_NOISE = "above_noise"
    AMBIGUOUS = "ambiguous"
    STEP_LIMIT = "step_limit"
    TIME_LIMIT = "time_limit"
    INFEASIBLE = "infeasible"
    FAILED = "failed"

    @property
    def message(self) -> str:
        """One sentence: what happened, and what to change."""
        return _MESSAGES[self]

    @property
    def has_latent(self) -> bool:
        """Whether the latent code is a number at all (else it is NaN)."""
        return self not in (Status.INFEASIBLE, Status.FAILED)

    def each(self, count: int) -> NDArray[np.object_]:
        """An array of ``count`` times this status (``np.full`` would turn it into plain text)."""
        array = np.empty(count, dtype=object)
        array[:] = self
        return array


_MESSAGES = {
    Status.SOLVED: (
        "The code explains the observation: the residual's root mean square is at most `noise`, "
        "and no entry is off by more than twice that."
    ),
    Status.ABOVE_NOISE: (
        "The method finished, but the residual is above `noise`: raise `noise` if it was set too "
        "low, try another method, or accept that the observation is not in the range."
    ),
    Status.AMBIGUOUS: (
        "Some layer does not determine its input (see `layers[i].rank`), or the whole network its "
        "code (see `rank`, which falls short of the latent size by the directions that are not "
        "seen), so other codes may explain the observation as well: observe more of it."
    ),
    Status.STEP_LIMIT: "Not converged when the steps ran out: raise `steps`, or change `rate`.",
    Status.TIME_LIMIT: (
        "Not converged when the time ran out; the code is the best one until then: raise "
        "`time_limit`."
    ),
    Status.INFEASIBLE: (
        "No tolerance up to the largest one tried admits a point in some layer: raise `noise`, "
        "or use norm='linf', whose programs are always feasible."
    ),
    Status.FAILED: (
        "A numerical failure, such as overflow: choose another `backend` for a linear program, "
        "a smaller `rate` for a gradient method, or rescale the generator."
    ),
}


def count_statuses(statuses: NDArray[np.object_]) -> dict[Status, int]:
    """Number of samples of each status, in the order above; those that none has are left out."""
    return {status: n for status in Status if (n := int((statuses == status).sum()))}


class LayerReport(NamedTuple):
    """What one layer's step did, one entry a sample; NaN or -1 where a method does not say.

    Attributes:
        slack: Largest error (l-infinity, in units of the layer's output) or sum of errors (l1)
            that the layer's program needed; for exact inversion the largest violation.
        tolerance: The tolerance eps that was reached, and is handed to the layer below.
        active: Rows taken as equations (two-sided).
        rank: Numerical rank of those rows; below the layer's input size the equations alone do
            not determine the input.
        outside: Observed entries that lie outside the activation's range by more than the
            tolerance, such as entries below -eps under a ReLU.
        programs: Linear programs solved.
    """

    slack: Array
    tolerance: Array
    active: Integers
    rank: Integers
    outside: Integers
    programs: Integers


class Stage(NamedTuple):
    """One step of a method that tries several, one entry a sample.

    Attributes:
        name: Of the step.
        residual: ``||x - G(z)||_2`` of the step's own code; NaN where it was not tried.
        answered: Whether the code that is returned came from this step.
    """

    name: str
    residual: Array
    answered: Flags


class Estimate(NamedTuple):
    """What a method hands to ``invert``: unverified.

    Attributes:
        latent: (batch, k); NaN where there is none.
        status: One ``Status`` a sample; ``SOLVED`` means here that the method is done.
        layers: First layer first; empty for methods that do not work layer by layer.
        stages: In order; empty for methods that try one thing only.
        rank: (batch,) of the observed Jacobian at the code; None if the method does not compute it.
        bound: (batch,) lower bound on the misfit of any code; None if the method proves none.
        gap: (batch,) distance of the misfit reached from that bound; None likewise.
    """

    latent: Array
    status: NDArray[Any]
    layers: tuple[LayerReport, ...] = ()
    stages: tuple[Stage, ...] = ()
    rank: Integers | None = None
    bound: Array | None = None
    gap: Array | None = None


@dataclass(frozen=True, eq=False)
class Inversion:
    """Latent codes with what is known about them. Without a batch, entries are scalars.

    Attributes:
        latent: (batch, k) float64; NaN where the status says that there is none.
        residual: (batch,) ``||x - G(latent)||_2``, recomputed from the generator.
        residual_max: (batch,) ``||x - G(latent)||_inf``, the number to hold against ``noise``.
        status: (batch,) of ``Status`` (a string: ``inversion.status == "solved"`` works).
        rank: (batch,) numerical rank of the observed Jacobian at the code: below the latent size,
            some directions of z are not seen; -1 where the method does not compute it.
        layers: One ``LayerReport`` a layer, first layer first; empty if the method has none.
        stages: One ``Stage`` a step that was tried, in order; empty if the method has none.
        bound: (batch,) lower bound on the misfit of any code, in the norm of the method that found
            it (``BranchAndBound``); NaN where the method proves none.
        gap: (batch,) distance of the misfit reached from that bound; NaN likewise.
        standard_error: (batch, k) standard deviation of each latent coordinate that noise causes,
            ``sqrt(diag((J^T S^-1 J)^-1))`` with J the Jacobian at the code and S the diagonal
            matrix of squared ``noise``, which is taken as the standard deviation of independent
            errors (divide by sqrt(3) where it bounds uniform ones). It holds for least-squares
            fits as long as the errors do not cross a kink. NaN where ``noise`` is 0, or where the
            observation does not determine the code.
        condition: (batch,) condition number of the observed Jacobian at the code, with columns
            scaled to norm 1, from above (at most k times too large). Rounding and noise move some
            direction of z by up to this factor; from about 1e6 on, codes of linear programs may
            be wrong in all digits though their residual is right. Infinite where the rank is not
            full, NaN where the method knows uniqueness by other means.
    """

    latent: Array
    residual: Any
    residual_max: Any
    status: Any
    rank: Any
    layers: tuple[LayerReport, ...] = ()
    stages: tuple[Stage, ...] = ()
    bound: Any = np.nan
    gap: Any = np.nan
    standard_error: Any = np.nan
    condition: Any = np.nan

    def __len__(self) -> int:
        return len(np.atleast_2d(self.latent))

    def columns(self) -> dict[str, NDArray[Any]]:
        """All entries but the reports, by name, with one row a sample, even where that is one."""
        shapes = dict.fromkeys(("latent", "standard_error"), np.atleast_2d(self.latent).shape)
        return {
            field.name: np.broadcast_to(
                np.asarray(getattr(self, field.name), object if field.name == "status" else None),
                shapes.get(field.name, len(self)),
            )
            for field in fields(self)
            if field.name not in ("layers", "stages")
        }

    def reconstruct(self, generator: Network) -> Array:
        """``G(latent)``, (batch, n) or (n,); NaN where there is no latent."""
        return outputs_of(generator, self.latent)

    @staticmethod
    def concatenate(parts: Sequence[Inversion]) -> Inversion:
        """Join batches by one method, in order; at least one."""
        return _combined(parts, np.concatenate)

    def squeeze(self) -> Inversion:
        """The only sample of a batch of one, without its batch dimension."""
        return _combined([self], lambda arrays: np.array(arrays[0])[0])

    def __repr__(self) -> str:
        counts = count_statuses(self.columns()["status"])
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"Inversion({len(self)} samples: {summary or 'none'})"

    def _repr_html_(self) -> str:
        return inversion_html(self)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, one row a sample (extra ``notebook``).

        Raises:
            MissingExtraError: pandas is not installed.
        """
        with extra("notebook", "pandas"):
            import pandas
        columns = self.columns()
        latent = {f"z{i}": column for i, column in enumerate(columns["latent"].T)}
        names = ("status", "residual", "residual_max", "rank", "bound", "gap")
        shown = {name: columns[name] for name in names} | latent
        return pandas.DataFrame(shown | {"status": columns["status"].astype(str)}).rename_axis(
            "sample"
        )

    def plot(self, generator: Network, observation: ArrayLike | None = None) -> Any:
        """Reconstructions as images, under their observations if given (extra ``plot``).

        Returns:
            A ``matplotlib.figure.Figure``.

        Raises:
            InputError: Observations that do not fit.
            MissingExtraError: matplotlib is not installed.
        """
        rows = {"reconstruction": np.atleast_2d(self.reconstruct(generator))}
        if observation is not None:
            rows = {"observation": np.atleast_2d(observation), **rows}
        return image_grid(rows)


def outputs_of(generator: Network, latent: Array) -> Array:
    """``G(latent)`` of one code or a batch; NaN where the code is NaN."""
    codes = np.atleast_2d(latent)
    finite = np.isfinite(codes).all(axis=1)
    outputs = np.full((len(codes), generator.observation_size), np.nan)
    if finite.any():
        outputs[finite] = generator(codes[finite])
    return outputs[0] if latent.ndim == 1 else outputs


def _combined(parts: Sequence[Inversion], join: Callable[[Sequence[Array]], Any]) -> Inversion:
    """One inversion of several: ``join`` makes one array of those that the parts have."""
    layers = zip(*(part.layers for part in parts), strict=True)
    stages = zip(*(part.stages for part in parts), strict=True)
    columns = [part.columns() for part in parts]
    return Inversion(
        layers=tuple(LayerReport(*map(join, zip(*same, strict=True))) for same in layers),
        stages=tuple(
            Stage(same[0].name, join([s.residual for s in same]), join([s.answered for s in same]))
            for same in stages
        ),
        **{name: join([each[name] for each in columns]) for name in columns[0]},
    )
