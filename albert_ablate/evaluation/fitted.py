"""A head fitted on the frozen encoder: logistic regression on standardised features.

With x_i the features of pair i, scaled to mean 0 and standard deviation 1, and y_i its label, w and b minimise

    ||w||^2 / 2  +  C * sum_i [ log(1 + exp(x_i w + b)) - y_i (x_i w + b) ].

On a CPU scikit-learn finds the minimum. A GPU would be idle meanwhile, so there Newton's method finds the same minimum
on the device, in a few steps.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Inverse strength of the penalty on w; the intercept b has none.
C = 0.1
#: Newton's method ends when the objective can fall by no more than this share of its value, or after so many steps.
_DECREASE, _STEPS = 1e-14, 100


def predicted(x: np.ndarray, labels: np.ndarray, features: np.ndarray, device: torch.device) -> np.ndarray:
    """Fit a head on ``x`` (n, H) and ``labels`` (n,) of 0 and 1; returns its labels (m,) for ``features`` (m, H)."""
    return (_on_host if device.type == "cpu" else _on_device)(x, labels, features, device)


def _on_host(x: np.ndarray, labels: np.ndarray, features: np.ndarray, _device: torch.device) -> np.ndarray:
    # Imported here: scikit-learn takes a second to load, and training does not need it.
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


def head(x: np.ndarray, labels: np.ndarray, device: torch.device) -> tuple[np.ndarray, float]:
    """Fit a head as ``predicted`` does; returns its weights (H,) and intercept, for features that are not scaled.

    The log-odds of label 1 are ``features @ weights + intercept``. Both labels must occur.
    """
    find = _head_on_host if device.type == "cpu" else _head_on_device
    mean, scale, weights, intercept = find(x, labels, device)
    weights = weights.astype(np.float64) / scale
    return weights, intercept - float(mean @ weights)


def _head_on_host(
    x: np.ndarray, labels: np.ndarray, _device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, scale and weight of each feature, and the intercept."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    found = LogisticRegression(C=C, max_iter=1000).fit(scaler.fit_transform(x), labels)
    return scaler.mean_, scaler.scale_, found.coef_[0], float(found.intercept_[0])


def _head_on_device(
    x: np.ndarray, labels: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    known = torch.from_numpy(x).to(device).double()
    mean, scale = _mean_and_scale(known)
    weights, intercept = logistic_regression((known - mean) / scale, torch.from_numpy(labels).to(device).double())
    return mean.cpu().numpy(), scale.cpu().numpy(), weights.cpu().numpy(), float(intercept)


def _mean_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; 1 if the deviation is only rounding error, as in scikit-learn."""
    variance, mean = torch.var_mean(x, 0, correction=0)
    n, eps = len(x), torch.finfo(x.dtype).eps
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    return mean, torch.where(constant, 1.0, variance.sqrt())


def logistic_regression(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weights w (H,) and intercept b () for ``x`` (n, H) fp64 and ``labels`` (n,) fp64 of 0 and 1; both must occur.

    The objective is strictly convex, so Newton's steps, halved while they do not lower it, reach its only minimum.
    """
    columns = torch.cat([x, x.new_ones(len(x), 1)], 1)  # (n, H + 1); the column of the intercept is 1
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
