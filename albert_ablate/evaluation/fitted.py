"""A head fitted on the frozen encoder: logistic regression on standardised features.

With x_i the features of pair i, scaled to mean 0 and deviation 1, and y_i its label, it is the one minimum of

    ||w||^2 / 2  +  C * sum_i [ log(1 + exp(x_i w + b)) - y_i (x_i w + b) ].

On a CPU scikit-learn looks for it. A GPU would wait for that: there Newton's method finds the same minimum in a few
steps on the device.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Inverse strength of the penalty on w; the intercept b has none.
C = 0.1
#: Newton's method ends where the objective can fall by less than this share of itself, or after so many steps.
_DECREASE, _STEPS = 1e-14, 100


def predicted(x: np.ndarray, labels: np.ndarray, features: np.ndarray, device: torch.device) -> np.ndarray:
    """Labels (m,) that a head fitted on ``x`` (n, H) and ``labels`` (n,) of 0 and 1 gives ``features`` (m, H)."""
    return (_on_host if device.type == "cpu" else _on_device)(x, labels, features, device)


def _on_host(x: np.ndarray, labels: np.ndarray, features: np.ndarray, _device: torch.device) -> np.ndarray:
    # Here, not above: scikit-learn takes a second to load, and training does not need it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    predictions: np.ndarray = head.fit(x, labels).predict(features)
    return predictions


def _on_device(x: np.ndarray, labels: np.ndarray, features: np.ndarray, device: torch.device) -> np.ndarray:
    known, asked = (torch.from_numpy(values).to(device).double() for values in (x, features))
    mean, scale = _mean_and_scale(known)
    weights, intercept = logistic_regression((known - mean) / scale, torch.from_numpy(labels).to(device).double())
    scores = (asked - mean) / scale @ weights + intercept
    return (scores > 0).long().cpu().numpy()


def _mean_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column; 1 for a column whose deviation is rounding, as in scikit-learn."""
    variance, mean = torch.var_mean(x, 0, correction=0)
    n, eps = len(x), torch.finfo(x.dtype).eps
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    return mean, torch.where(constant, 1.0, variance.sqrt())


def logistic_regression(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum for ``x`` (n, H) fp64 and ``labels`` (n,) fp64 of 0 and 1, both of which occur: w (H,) and b ().

    The objective is strictly convex, so Newton's steps, halved where they would not lower it, end at its one minimum.
    """
    columns = torch.cat([x, x.new_ones(len(x), 1)], 1)  # (n, H + 1): the intercept's is 1
    penalty = torch.cat([x.new_ones(x.shape[1]), x.new_zeros(1)])

    def objective(theta: Tensor) -> Tensor:
        scores = columns @ theta
        return (penalty * theta * theta).sum() / 2 + C * (F.softplus(scores) - labels * scores).sum()

    theta = x.new_zeros(x.shape[1] + 1)
    value = objective(theta)
    for _ in range(_STEPS):
        share = torch.sigmoid(columns @ theta)
        gradient = C * (columns.T @ (share - labels)) + penalty * theta
        curvature = C * (columns.T @ (columns * (share * (1 - share))[:, None])) + torch.diag(penalty)
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        fall = float(gradient @ step)  # twice what a whole step would gain if the objective were quadratic
        if fall <= _DECREASE * float(value):
            break
        length = 1.0
        while float(trial := objective(theta - length * step)) > float(value) - 1e-4 * length * fall:
            length /= 2
        theta, value = theta - length * step, trial
    return theta[:-1], theta[-1]
