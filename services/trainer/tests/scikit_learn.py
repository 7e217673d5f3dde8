"""What scikit-learn says about scores: a list of {"logits", "forged"} in, a list of answers out, as JSON.

    .deps/python/bin/python3 services/trainer/tests/scikit_learn.py <cases.json

`.ci/setup --tests` makes .deps/python (pinned in .ci/python.txt).
"""

import json
import sys

import numpy as np
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


def answer(case):
    x = np.array(case["logits"], dtype=np.float64)
    y = np.array(case["forged"], dtype=int)
    if len(set(y)) < 2:
        return None
    fpr, tpr, _ = roc_curve(y, x, drop_intermediate=False)
    found = {
        "auc": roc_auc_score(y, x),
        "average_precision": average_precision_score(y, x),
        "tpr_at_1_percent": tpr[fpr <= 0.01].max(),
        "equal_error_rate": brentq(lambda p: 1 - p - np.interp(p, fpr, tpr), 0, 1, xtol=1e-14),
        "fpr": fpr.tolist(),
        "tpr": tpr.tolist(),
    }
    if case["overlap"]:
        scale = x.std()
        fit = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10, max_iter=10_000)
        fit.fit((x / scale)[:, None], y)
        found["slope"] = fit.coef_[0, 0] / scale
        found["intercept"] = fit.intercept_[0]
    return found


json.dump([answer(case) for case in json.load(sys.stdin)], sys.stdout)
