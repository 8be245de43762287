"""SparseGPT (Frantar and Alistarh, 2023, arXiv 2301.00774): zero weights of a linear map; the others make up for them.

With H the second moment of what the map reads, taking a weight away costs w² / [H⁻¹]_jj in the squared error of the
output, and how the weights after it have to move is known in closed form (Hassibi and Stork, 1993). All rows go
through the columns in the same order, so one Cholesky factor of H⁻¹ serves them all. Which weights go is decided for
`BLOCK` columns at a time, or for each group of four.

A one is appended to what the map reads, so the bias is the last column: it is never taken away, and makes up for what
the others lost in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Pattern = Literal["unstructured", "2:4"]
BLOCK = 128
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


def remove_weights(weight: torch.Tensor, moment: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """The map [out, in + 1], bias last, with zeros in it, for the second moment [in + 1, in + 1] of its inputs."""
    weight, root = weight.double().clone(), inverse_root(moment, scheme.ridge)
    columns = weight.shape[1] - 1
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        count = round(scheme.sparsity * len(weight) * end) - round(scheme.sparsity * len(weight) * start)
        block = weight[:, start:end]
        errors = _sweep(block, root[start:end, start:end], count=count, grouped=scheme.pattern == "2:4")
        weight[:, end:] -= errors @ root[start:end, end:]
    return weight


def inverse_root(moment: torch.Tensor, ridge: float) -> torch.Tensor:
    """The upper Cholesky factor of the damped moment's inverse; the ridge is relative to the mean square of inputs."""
    import torch

    level = float(moment.diagonal()[:-1].mean())
    pull = torch.full((len(moment),), ridge * level, dtype=torch.float64)
    pull[-1] = BIAS_RIDGE * float(moment[-1, -1])
    damped = moment + torch.diag(pull.clamp_min(1e-12))
    inverse: torch.Tensor = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    root: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return root


def _sweep(block: torch.Tensor, root: torch.Tensor, *, count: int, grouped: bool) -> torch.Tensor:
    """Zero `count` weights of a block, or two of each four, in place; what the columns after it have to make up for.

    A column is brought up to date when its turn comes, by one product with the errors of all before it.
    """
    import torch

    weights, errors = block.T.contiguous(), torch.zeros(block.T.shape, dtype=block.dtype)
    gone = torch.zeros_like(weights, dtype=torch.bool) if grouped else _cheapest(block, root, count).T.contiguous()
    for column in range(len(weights)):
        if grouped and column % GROUP == 0:
            group = slice(column, column + GROUP)
            ahead = weights[group] - root[:column, group].T @ errors[:column]
            gone[group] = _cheapest_of_group(ahead.T, root[group, group]).T
        weights[column] -= root[:column, column] @ errors[:column]
        errors[column] = weights[column] * gone[column] / root[column, column]
    block.copy_(weights.masked_fill_(gone, 0.0).T)
    return errors.T


def _cheapest(block: torch.Tensor, root: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` weights of a block that cost least, as a mask."""
    import torch

    gone = torch.zeros(block.numel(), dtype=torch.bool)
    gone[_costs(block, root).flatten().topk(count, largest=False).indices] = True
    return gone.reshape(block.shape)


def _cheapest_of_group(group: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Of each row's four weights the two that cost least, as a mask."""
    import torch

    chosen = _costs(group, root).topk(GROUP - KEPT, dim=1, largest=False).indices
    return torch.zeros_like(group, dtype=torch.bool).scatter_(1, chosen, value=True)


def _costs(weights: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """What taking each weight away costs, those before it being settled."""
    return (weights / root.diagonal()).square()
