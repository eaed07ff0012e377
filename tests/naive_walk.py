"""The random walk from its definition, all in float64."""

from __future__ import annotations

import numpy as np


def distance_to_segment(point: np.ndarray, end: np.ndarray) -> float:
    along = np.clip(point @ end / (end @ end), 0, 1)
    return float(np.linalg.norm(point - along * end))


def dense_walk(
    cam: np.ndarray, edge: np.ndarray, *, radius: int = 5, beta: float = 10, steps: int = 256
) -> np.ndarray:
    """Form the N x N matrix from the definition and step with it, all in float64."""
    h, w = edge.shape
    edge = edge.astype(np.float64)
    matrix = np.eye(h * w)
    reach = range(-radius, radius + 1)
    for dy in reach:
        for dx in reach:
            if not 0 < dy * dy + dx * dx < radius * radius:
                continue
            end = np.array([dy, dx], dtype=np.float64)
            path = [
                (y, x)
                for y in reach
                for x in reach
                if distance_to_segment(np.array([y, x], dtype=np.float64), end) < 1 - 1e-9
            ]
            for y in range(max(0, -dy), min(h, h - dy)):
                for x in range(max(0, -dx), min(w, w - dx)):
                    strongest = max(edge[y + py, x + px] for py, px in path)
                    matrix[y * w + x, (y + dy) * w + x + dx] = (1 - strongest) ** beta
    matrix /= matrix.sum(0, keepdims=True)
    scores = (cam.astype(np.float64) * (1 - edge)).reshape(len(cam), -1)
    for _ in range(steps):
        scores = scores @ matrix
    return scores.reshape(cam.shape)
