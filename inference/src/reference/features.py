"""Writes features.json: what numpy and scipy make of some signals, for feature_tests.rs.

    pip install numpy==2.4.6 scipy==1.17.1
    python features.py > features.json
"""
import json

import numpy as np
from scipy import stats

RATE = 1000.0
BANDS = [[0, 50], [50, 120.5], [120.5, 501]]


def band(x, low, high):
    power = np.abs(np.fft.rfft(x)) ** 2 / len(x) ** 2
    power[1 : (len(x) + 1) // 2] *= 2
    frequency = np.fft.rfftfreq(len(x), 1 / RATE)
    return power[(frequency >= low) & (frequency < high)].sum()


def features(x):
    rms = np.sqrt(np.mean(x**2))
    return {
        "last": x[-1],
        "mean": np.mean(x),
        "std": np.std(x),
        "min": np.min(x),
        "max": np.max(x),
        "slope": np.polyfit(np.arange(len(x)), x, 1)[0],
        "rms": rms,
        "peak_to_peak": np.ptp(x),
        "kurtosis": stats.kurtosis(x),
        "skewness": stats.skew(x),
        "crest": np.max(np.abs(x)) / rms,
        "bands": [band(x, *edges) for edges in BANDS],
    }


def main():
    draw = np.random.default_rng(7)
    cases = []
    # A power of two, a product of small primes, a prime, an odd and a tiny count.
    for count in (128, 60, 97, 33, 2):
        t = np.arange(count) / RATE
        for name, x in {
            "noise": draw.normal(3.0, 2.0, count),
            "bearing": np.sin(2 * np.pi * 110 * t) + (draw.random(count) > 0.95) * 4,
            "offset": 1e4 + 0.01 * t + draw.normal(0, 1e-3, count),
        }.items():
            x = np.round(x, 6)
            cases.append({"name": f"{name} {count}", "samples": list(x), **features(x)})
    print(json.dumps({"rate": RATE, "bands_hz": BANDS, "cases": cases}))


main()
