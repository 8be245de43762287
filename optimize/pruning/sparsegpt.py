"""SparseGPT (Frantar and Alistarh, 2023, arXiv 2301.00774): zero weights of a linear map; the others make up for them.

With H the second moment of what the map reads, taking a weight away costs w² / [H⁻¹]_jj in the squared error of the
output, and how the weights after it have to move is known in closed form (Hassibi and Stork, 1993). All rows go
through the columns in the same order, so one upper Cholesky factor U of H⁻¹ = UᵀU serves them all: row j of U holds
what the closed form needs once the columns before j are settled, with U_jj² in the place of [H⁻¹]_jj. Which weights go
is decided for `BLOCK` columns at a time, or for each group of four.

A one is appended to what the map reads, so the bias is the last column: it is never taken away, and makes up for what
the others lost in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Pattern = Literal["unstructured", "2:4"]
BLOCK = 128
"""Columns whose weights are chosen together, as in the paper: fewer adapt better to errors, more compare more."""
GROUP, KEPT = 4, 2
BIAS_RIDGE = 1e-6


@dataclass(frozen=True)
class Scheme:
    """Which weights may go: any share of them, or two of every four consecutive inputs of an output."""

    pattern: Pattern
    sparsity: float
    ridge: float


def fits(columns: int, pattern: Pattern) -> bool:
    """Whether a map that reads so many inputs can have the pattern."""
    return pattern == "unstructured" or columns % GROUP == 0


def remove_weights(weight: Tensor, moment: Tensor, scheme: Scheme) -> Tensor:
    """The map [out, in + 1], bias last, with zeros in it, for the second moment [in + 1, in + 1] of its inputs."""
    W, U = weight.double().clone(), inverse_root(moment, scheme.ridge)
    columns = W.shape[1] - 1
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        # The difference of two rounded totals: shares rounded block by block would not add up to the whole.
        count = round(scheme.sparsity * len(W) * end) - round(scheme.sparsity * len(W) * start)
        block = W[:, start:end]
        E = _sweep(block, U[start:end, start:end], count=count, grouped=scheme.pattern == "2:4")
        # Columns behind the block are brought up to date at once, by one product.
        W[:, end:] -= E @ U[start:end, end:]
    return W


def inverse_root(moment: Tensor, ridge: float) -> Tensor:
    """U, upper triangular, of the damped H⁻¹ = UᵀU; the ridge is relative to the mean square of inputs."""
    import torch

    level = float(moment.diagonal()[:-1].mean())
    damping = torch.full((len(moment),), ridge * level, dtype=torch.float64)
    damping[-1] = BIAS_RIDGE * float(moment[-1, -1])
    H = moment + torch.diag(damping.clamp_min(1e-12))
    H_inv: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(H))
    U: Tensor = torch.linalg.cholesky(H_inv, upper=True)
    return U


def _sweep(block: Tensor, U: Tensor, *, count: int, grouped: bool) -> Tensor:
    """Zero `count` weights of a block, or two of each four, in place; the errors that columns after it make up for.

    A column is brought up to date when its turn comes, by one product with the errors of all before it.
    """
    import torch

    # Transposed, so that a column of weights lies in one piece: this loop takes most of the stage's time.
    W, E = block.T.contiguous(), torch.zeros(block.T.shape, dtype=block.dtype)
    gone = torch.zeros_like(W, dtype=torch.bool) if grouped else _cheapest(block, U, count).T.contiguous()
    for j in range(len(W)):
        if grouped and j % GROUP == 0:
            group = slice(j, j + GROUP)
            ahead = W[group] - U[:j, group].T @ E[:j]
            gone[group] = _cheapest_of_group(ahead.T, U[group, group]).T
        W[j] -= U[:j, j] @ E[:j]
        # The error w_j / U_jj of each weight that goes; those that stay leave none.
        E[j] = W[j] * gone[j] / U[j, j]
    block.copy_(W.masked_fill_(gone, 0.0).T)
    return E.T


def _cheapest(block: Tensor, U: Tensor, count: int) -> Tensor:
    """The `count` weights of a block that cost least, as a mask."""
    import torch

    gone = torch.zeros(block.numel(), dtype=torch.bool)
    gone[_costs(block, U).flatten().topk(count, largest=False).indices] = True
    return gone.reshape(block.shape)


def _cheapest_of_group(group: Tensor, U: Tensor) -> Tensor:
    """Of each row's four weights the two that cost least, as a mask."""
    import torch

    chosen = _costs(group, U).topk(GROUP - KEPT, dim=1, largest=False).indices
    return torch.zeros_like(group, dtype=torch.bool).scatter_(1, chosen, value=True)


def _costs(weights: Tensor, U: Tensor) -> Tensor:
    """What taking each weight away costs, (w / U_jj)², those before it being settled."""
    return (weights / U.diagonal()).square()
