"""Vahadane's stain vectors: two non-negative directions that explain optical density sparsely.

A. Vahadane et al., Structure-preserving color normalization and sparse stain separation for
histological images, IEEE TMI 2016. The objective is that of staintools (spams.trainDL, K = 2, mode
2, λ = 0.1): the mean over tissue of ½‖x − Dα‖² + λ‖α‖₁ with α ≥ 0, D ≥ 0 and columns of length at
most 1. staintools stops after one second; here the two convex subproblems are solved alternately,
each in closed form, until D converges: the result depends on neither a clock nor a random start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.serving.stain import macenko
from oncoshift.serving.stain.compiled import compiled, compiled_reordering

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPARSITY = 0.1
"""λ of the dictionary; `concentrations.SPARSITY` is that of the concentrations."""

MAX_ROUNDS = 1000
STILL = 1e-6
"""D has converged when no entry changes by more than this in a round."""

_BLOCK = 512
_ZERO, _ONE = np.float32(0), np.float32(1)


def stain_vectors(tissue: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Estimate unit stain vectors [2, 3], haematoxylin first, from optical densities [3, k].

    Returns None if the tissue lacks two colours.
    """
    start = macenko.stain_vectors(tissue)
    if start is None:
        return None
    atoms, _ = converge(tissue, np.maximum(start, 0.0))
    return ordered(atoms)


def ordered(atoms: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Scale atoms [2, 3] to unit length, the one with more red first; None if they coincide."""
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    if not (np.isfinite(atoms).all() and norms.min() > 0 and np.dot(*(atoms / norms)) < np.cos(macenko.MIN_ANGLE)):
        return None
    atoms = atoms / norms
    return atoms[::-1].copy() if atoms[0, 0] < atoms[1, 0] else atoms


@compiled
def converge(tissue: NDArray[np.float32], start: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Solve for concentrations and atoms [2, 3] in turn; return the atoms and the rounds taken."""
    atoms = start.copy()
    for done in range(1, MAX_ROUNDS + 1):
        gram, cross = _moments(tissue, atoms.astype(np.float32))
        change = 0.0
        for j in range(2):
            # The best atom, one after the other, for fixed concentrations (Mairal 2009, algorithm
            # 2).
            if gram[j, j] <= 0:
                continue
            better = np.maximum(atoms[j] + (cross[j] - gram[j, 0] * atoms[0] - gram[j, 1] * atoms[1]) / gram[j, j], 0.0)
            better /= max(np.sqrt((better * better).sum()), 1.0)
            change = max(change, np.abs(better - atoms[j]).max())
            atoms[j] = better
        if not change > STILL:
            return atoms, done
    return atoms, MAX_ROUNDS


@compiled_reordering
def _moments(
    tissue: NDArray[np.float32], atoms: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum α αᵀ [2, 2] and α xᵀ [2, 3] of the best concentrations α for these atoms [2, 3]."""
    k = tissue.shape[1]
    gram, cross = np.zeros((2, 2)), np.zeros((2, 3))
    h0, h1, h2, e0, e1, e2 = atoms[0, 0], atoms[0, 1], atoms[0, 2], atoms[1, 0], atoms[1, 1], atoms[1, 2]
    hh, ee = h0 * h0 + h1 * h1 + h2 * h2, e0 * e0 + e1 * e1 + e2 * e2
    overlap = h0 * e0 + h1 * e1 + h2 * e2
    scale = _ONE / (hh * ee - overlap * overlap)
    one_h, one_e = _ONE / hh, _ONE / ee
    penalty = np.float32(SPARSITY)
    # Single precision within a block allows vector instructions; double across blocks keeps digits.
    for start in range(0, k, _BLOCK):
        stop = start + _BLOCK
        r, g, b = tissue[0, start:stop], tissue[1, start:stop], tissue[2, start:stop]
        hr = hg = hb = er = eg = eb = aa = ab = bb = _ZERO
        for i in range(len(r)):
            p = h0 * r[i] + h1 * g[i] + h2 * b[i] - penalty
            q = e0 * r[i] + e1 * g[i] + e2 * b[i] - penalty
            s = (p * ee - overlap * q) * scale
            t = (q * hh - overlap * p) * scale
            first = max(p * one_h if t < _ZERO else s, _ZERO)
            second = max(q * one_e if s < _ZERO else t, _ZERO)
            aa += first * first
            ab += first * second
            bb += second * second
            hr += first * r[i]
            hg += first * g[i]
            hb += first * b[i]
            er += second * r[i]
            eg += second * g[i]
            eb += second * b[i]
        gram[0, 0] += aa
        gram[0, 1] += ab
        gram[1, 1] += bb
        cross[0, 0] += hr
        cross[0, 1] += hg
        cross[0, 2] += hb
        cross[1, 0] += er
        cross[1, 1] += eg
        cross[1, 2] += eb
    gram[1, 0] = gram[0, 1]
    return gram, cross
