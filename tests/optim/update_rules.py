"""The update rules of the twelve optimizers in NumPy, float64, as the papers and torch's documentation state them.

A rule is a function of the optimizer's options that returns `update(x, gradient) -> x`; its state lives in the closure.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Update = Callable[[Array, Array], Array]


def sgd(lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool) -> Update:
    buffer: Array | None = None

    def update(x: Array, g: Array) -> Array:
        nonlocal buffer
        g = g + weight_decay * x
        buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
        return x - lr * (g + momentum * buffer if nesterov else buffer)

    return update


def adam(
    lr: float, betas: list[float], eps: float, weight_decay: float, amsgrad: bool, decoupled: bool = False
) -> Update:
    beta1, beta2 = betas
    m = v = largest = np.zeros(())
    t = 0

    def update(x: Array, g: Array) -> Array:
        nonlocal m, v, largest, t
        t += 1
        if decoupled:
            x = x - lr * weight_decay * x
        else:
            g = g + weight_decay * x
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        largest = np.maximum(largest, v)
        second = (largest if amsgrad else v) / (1 - beta2**t)
        return x - lr * m / (1 - beta1**t) / (np.sqrt(second) + eps)

    return update


def adamw(**options: Any) -> Update:
    return adam(**options, decoupled=True)


def adagrad(lr: float, lr_decay: float, weight_decay: float, initial_accumulator_value: float, eps: float) -> Update:
    total = np.asarray(initial_accumulator_value)
    t = 0

    def update(x: Array, g: Array) -> Array:
        nonlocal total, t
        g = g + weight_decay * x
        total = total + g**2
        rate = lr / (1 + t * lr_decay)
        t += 1
        return x - rate * g / (np.sqrt(total) + eps)

    return update


def adadelta(lr: float, rho: float, eps: float, weight_decay: float) -> Update:
    squares = steps = np.zeros(())

    def update(x: Array, g: Array) -> Array:
        nonlocal squares, steps
        g = g + weight_decay * x
        squares = rho * squares + (1 - rho) * g**2
        step = np.sqrt(steps + eps) / np.sqrt(squares + eps) * g
        steps = rho * steps + (1 - rho) * step**2
        return x - lr * step

    return update


def rmsprop(lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool) -> Update:
    squares = mean = buffer = np.zeros(())

    def update(x: Array, g: Array) -> Array:
        nonlocal squares, mean, buffer
        g = g + weight_decay * x
        squares = alpha * squares + (1 - alpha) * g**2
        mean = alpha * mean + (1 - alpha) * g
        variance = squares - mean**2 if centered else squares
        buffer = momentum * buffer + g / (np.sqrt(variance) + eps)
        return x - lr * buffer

    return update


def adamax(lr: float, betas: list[float], eps: float, weight_decay: float) -> Update:
    beta1, beta2 = betas
    m = u = np.zeros(())
    t = 0

    def update(x: Array, g: Array) -> Array:
        nonlocal m, u, t
        t += 1
        g = g + weight_decay * x
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g) + eps)
        return x - lr / (1 - beta1**t) * m / u

    return update


def nadam(
    lr: float, betas: list[float], eps: float, weight_decay: float, momentum_decay: float, decoupled_weight_decay: bool
) -> Update:
    beta1, beta2 = betas
    m = v = np.zeros(())
    t, product = 0, 1.0

    def mu(t: int) -> float:
        return beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(x: Array, g: Array) -> Array:
        nonlocal m, v, t, product
        t += 1
        if decoupled_weight_decay:
            x = x - lr * weight_decay * x
        else:
            g = g + weight_decay * x
        product *= mu(t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        first = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        return x - lr * first / (np.sqrt(v / (1 - beta2**t)) + eps)

    return update


def lbfgs(lr: float, history_size: int) -> Update:
    """L-BFGS without line search, with the inverse Hessian as a matrix (Nocedal and Wright, equation 7.19)."""
    pairs: list[tuple[Array, Array]] = []
    last: tuple[Array, Array] | None = None

    def update(x: Array, g: Array) -> Array:
        nonlocal last
        if last is None:
            step = -min(1.0, 1 / np.abs(g).sum()) * lr * g
        else:
            pairs.append((x - last[0], g - last[1]))
            step = -lr * inverse_hessian(pairs[-history_size:]) @ g
        last = x, g
        return x + step

    return update


def inverse_hessian(pairs: list[tuple[Array, Array]]) -> Array:
    """The BFGS estimate from pairs (change of x, change of the gradient), begun at the scaled identity."""
    s, y = pairs[-1]
    identity = np.eye(len(s))
    estimate = s @ y / (y @ y) * identity
    for s, y in pairs:
        flip = identity - np.outer(y, s) / (y @ s)
        estimate = flip.T @ estimate @ flip + np.outer(s, s) / (y @ s)
    return estimate


def muon_matrix(
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    ns_coefficients: list[float],
    eps: float,
    ns_steps: int,
) -> Update:
    """For one matrix (rows, columns), with the rate scaled by √max(1, rows/columns) (`adjust_lr_fn: original`)."""
    buffer = np.zeros(())

    def update(x: Array, g: Array) -> Array:
        nonlocal buffer
        buffer = momentum * buffer + g
        direction = orthogonalised(g + momentum * buffer if nesterov else buffer, ns_coefficients, eps, ns_steps)
        rows, columns = x.shape
        return x - lr * weight_decay * x - lr * np.sqrt(max(1, rows / columns)) * direction

    return update


def orthogonalised(matrix: Array, coefficients: list[float], eps: float, steps: int) -> Array:
    """Newton–Schulz: the singular values go through the quintic; the singular vectors stay."""
    u, singular, vt = np.linalg.svd(matrix, full_matrices=False)
    singular = singular / max(np.linalg.norm(matrix), eps)
    a, b, c = coefficients
    for _ in range(steps):
        singular = a * singular + b * singular**3 + c * singular**5
    return u * singular @ vt
