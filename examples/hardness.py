"""Why inversion is hard, as networks that run: 3SAT, and a preimage that is not convex.

Lei, Jalal, Dhillon and Dimakis (NeurIPS 2019), Theorem 1 and Example 1; the networks are our own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preimage import FormatError, Generator, InputError, from_arrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Any noise below 1/4 tells satisfiable formulas from others: an output of at most that leaves every
# variable that near to 0 or 1, and every clause less than one literal short.
NOISE = 0.125
_MAX_ENTRIES = 2**26


def from_cnf(path: str | os.PathLike[str]) -> tuple[Generator, Array]:
    """A network and an observation whose preimages are the satisfying assignments of a formula.

    With one latent coordinate v_i a variable, the network computes

        t_i = max(v_i, 0) - max(v_i - 1, 0)                     v_i clipped to [0, 1]
        u_c = max(1 - sum of the clause's literals, 0)          t_i, or 1 - t_i where negated
        outputs  (sum_c u_c,  sum_i min(t_i, 1 - t_i))

    in three ReLU layers, and the observation is (0, 0): every clause is satisfied, and every
    variable is 0 or 1. Codes outside [0, 1] do nothing more, so that the box (0, 1) loses none.
    Deciding whether a code explains it up to ``NOISE`` decides the formula:

        method = BranchAndBound(decide=True, box=(0.0, 1.0), rounds=0)
        inversion = preimage.invert(generator, observation, method, noise=hardness.NOISE)
        satisfiable = inversion.residual_max <= hardness.NOISE     # else bound > hardness.NOISE

    Args:
        path: A DIMACS CNF file; clauses of any length.

    Returns:
        The generator, and the observation, (2,).

    Raises:
        FormatError: Not a DIMACS CNF file, or one whose network would be too large.
    """
    count, clauses = _read_dimacs(Path(path))
    if 2 * count * (2 * count + len(clauses)) > _MAX_ENTRIES:
        raise FormatError(f"{path}: a network of {count} variables and {len(clauses)} clauses "
                          "would be too large")  # fmt: skip
    eye, zero = np.eye(count), np.zeros(count)
    # First max(v, 0) and max(v - 1, 0), whose difference is t; then max(2 t - 1, 0), t, and u.
    literals = np.zeros((len(clauses), count))
    negated = np.zeros(len(clauses))
    for row, clause in enumerate(clauses):
        for literal in clause:
            literals[row, abs(literal) - 1] += np.sign(literal)
            negated[row] += literal < 0
    second = np.vstack([
        np.hstack([2 * eye, -2 * eye]),
        np.hstack([eye, -eye]),
        np.hstack([-literals, literals]),
    ])  # fmt: skip
    bias = np.concatenate([-np.ones(count), zero, 1 - negated])
    # min(t, 1 - t) = t - max(2 t - 1, 0).
    third = np.zeros((2, 2 * count + len(clauses)))
    third[0, 2 * count :] = 1.0
    third[1, :count], third[1, count : 2 * count] = -1.0, 1.0
    first_bias = np.concatenate([zero, -np.ones(count)])
    generator = from_arrays([np.vstack([eye, eye]), second, third], [first_bias, bias, None])
    return generator, np.zeros(2)


def assignment(latent: ArrayLike) -> NDArray[np.bool_]:
    """The assignment that a code stands for: whether each variable is true."""
    return np.asarray(latent, dtype=np.float64) >= 0.5


def satisfies(path: str | os.PathLike[str], values: NDArray[np.bool_]) -> bool:
    """Whether an assignment satisfies the formula in a file."""
    _, clauses = _read_dimacs(Path(path))
    return all(any(values[abs(literal) - 1] == (literal > 0) for literal in c) for c in clauses)


def _read_dimacs(path: Path) -> tuple[int, list[list[int]]]:
    """Number of variables, and the clauses."""
    count: int | None = None
    numbers: list[int] = []
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if not words or words[0] == "c":
                continue
            if words[0] == "%":  # some collections end so
                break
            if words[0] == "p":
                if words[1] != "cnf" or count is not None:
                    raise FormatError(f"{path}: expected one line 'p cnf VARIABLES CLAUSES'")
                count, wanted = int(words[2]), int(words[3])
            else:
                numbers += map(int, words)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a DIMACS CNF file: {error}") from error
    if count is None or count < 1:
        raise FormatError(f"{path}: expected a line 'p cnf VARIABLES CLAUSES', first")
    clauses: list[list[int]] = [[]]
    for number in numbers:
        if abs(number) > count:
            raise FormatError(f"{path}: literal {number}, but there are {count} variables")
        if number:
            clauses[-1].append(number)
        else:
            clauses.append([])
    if clauses[-1]:
        raise FormatError(f"{path}: the last clause does not end with 0")
    clauses.pop()
    if len(clauses) != wanted:
        raise FormatError(f"{path}: expected {wanted} clauses, found {len(clauses)}")
    return count, clauses


def non_convex() -> tuple[Generator, Array, Array]:
    """A network of two layers with a preimage that is not convex (compare Example 1).

    ``G(z) = (max(|z_1| + |z_2| - 1, 0), max(1 - |z_1| - |z_2|, 0))``: the preimage of (0, 0) is the
    edge of a square, and the midpoint of two opposite corners is not in it.

    Returns:
        The generator (2 to 4 to 2), the observation (2,), and two preimages (2, 2).

    >>> generator, observation, corners = non_convex()
    >>> generator(corners), generator(corners.mean(axis=0))
    (array([[0., 0.],
           [0., 0.]]), array([0., 1.]))
    """
    eye, ones = np.eye(2), np.ones(4)
    generator = from_arrays(
        [np.vstack([eye, -eye]), np.vstack([ones, -ones])], [None, np.array([-1.0, 1.0])]
    )
    return generator, np.zeros(2), np.array([[1.0, 0.0], [-1.0, 0.0]])


def plane_figure(
    generator: Generator, observation: ArrayLike, codes: ArrayLike, *, half: float = 2.0
) -> Figure:
    """Draw the preimage of a network with two latent coordinates, such as Example 1.

    Args:
        generator: With latent size 2.
        observation: (n,).
        codes: (2, 2) two preimages; they and the middle between them are marked.
        half: The square drawn is ``[-half, half]^2``.

    Returns:
        A ``matplotlib.figure.Figure``: ``max |G(z) - x|`` as gray levels, its zeros dark.

    Raises:
        InputError: Another latent size, or not two codes.
    """
    x, pair = np.asarray(observation, dtype=np.float64), np.asarray(codes, dtype=np.float64)
    if generator.latent_size != 2 or pair.shape != (2, 2):
        raise InputError(
            "plane_figure: expected a generator of two latent coordinates and two codes, got "
            f"latent size {generator.latent_size} and codes of shape {pair.shape}"
        )
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    line = np.linspace(-half, half, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    misfit = np.abs(generator(grid) - x).max(axis=1).reshape(len(line), -1)
    figure = Figure(figsize=(4.6, 3.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    axes = figure.subplots()
    axes.set_aspect("equal")
    shown = axes.imshow(misfit, extent=(-half, half) * 2, origin="lower", cmap="cividis", vmin=0.0)
    axes.plot(*pair.T, "o--", color="white", markersize=5, linewidth=1, label="two preimages")
    axes.plot(*pair.mean(axis=0), "x", color="red", markersize=7, label="their midpoint")
    axes.legend(fontsize=8, loc="lower right", facecolor="0.25", labelcolor="white")
    axes.set_xlabel("$z_1$", fontsize=9)
    axes.set_ylabel("$z_2$", fontsize=9, labelpad=6)
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(shown, ax=axes)
    bar.set_label(r"$\max |G(z) - x|$", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure
