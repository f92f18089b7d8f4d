"""AI4I 2020 as the node sees it: one record a window."""

import csv
import gzip
import io

import numpy as np

# As a machine would publish them, and as the file has them.
COLUMNS = {
    "quality": "Type",
    "air_temperature": "Air temperature [K]",
    "process_temperature": "Process temperature [K]",
    "speed": "Rotational speed [rpm]",
    "torque": "Torque [Nm]",
    "wear": "Tool wear [min]",
}
QUALITY = {"L": 0, "M": 1, "H": 2}
# Three of every ten records are for the figures and no model is trained on them.
HELD_OUT = (2, 5, 8)


def records(folder):
    """The records, whether each failed, and whether it is held out."""
    text = gzip.decompress((folder / "ai4i2020" / "ai4i2020.csv.gz").read_bytes()).decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text)))

    def number(line, name):
        return float(QUALITY.get(line[name], line[name]))

    values = [[number(line, name) for name in COLUMNS.values()] for line in lines]
    failed = np.array([line["Machine failure"] == "1" for line in lines])
    return np.array(values, np.float32), failed, np.isin(np.arange(len(lines)) % 10, HELD_OUT)
