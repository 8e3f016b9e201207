"""Numbers on vectors, against what they are by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_ext.features.inspect import nearest, shape_of


def test_vectors_at_right_angles():
    shape = shape_of(2 * np.eye(4, dtype=np.float16))
    assert shape.norm == (2, 0) and shape.cosine == pytest.approx(0) and shape.n_equal == 0
    # centred, four corners of a simplex: three equal singular values
    assert shape.effective_rank == pytest.approx(3)


def test_vectors_that_are_one():
    shape = shape_of(np.ones((5, 3)))
    assert (shape.cosine, shape.n_equal) == (pytest.approx(1), 4)
    assert shape.effective_rank == 0 and shape.norm[0] == pytest.approx(3**0.5)


def test_the_mean_cosine_is_that_of_all_pairs():
    x = np.random.default_rng(0).normal(size=(30, 5)) + 0.5
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(30) for j in range(30) if i != j]
    assert shape_of(x).cosine == pytest.approx(np.mean(pairs))


def test_the_nearest_are_others():
    x = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0]])
    best, cosine = nearest(x, np.array([0, 2]), 10)
    assert best.tolist() == [[1, 2, 3], [1, 0, 3]]
    assert cosine[0, 1:].tolist() == pytest.approx([0, -1])
