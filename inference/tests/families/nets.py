"""Trains the nets that inference/tests/families.rs holds against onnxruntime, and exports them.

    pip install torch==2.15.0 onnx onnxscript numpy
    python nets.py /path/to/shared/data

Each is a usual small net over 30 cycles of 14 sensors of NASA's C-MAPSS FD001, written as
today's exporters of PyTorch write it: the dynamo exporter (the default) and the older
TorchScript one, each with a symbolic batch. What a net is worth as a predictor is beside the
point here, so a few epochs do. Seeded; float sums may differ in the last digits between machines.
"""

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
SEED = 20_267
ROWS = 30
# Those of the 21 sensors that change at all.
SENSORS = [2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21]
COLUMNS = len(SENSORS)
LIFE_MAX = 125.0
EPOCHS = 6


def table(path):
    return np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())))


def training_windows(data):
    """All windows of all engines, and the share of the (capped) life that is left after each."""
    rows = table(data / "cmapss" / "train_FD001.txt.gz")
    windows, lives = [], []
    for unit in np.unique(rows[:, 0]):
        sensors = rows[rows[:, 0] == unit][:, [4 + sensor for sensor in SENSORS]]
        for end in range(ROWS, len(sensors) + 1):
            windows.append(sensors[end - ROWS : end])
            lives.append(min(len(sensors) - end, LIFE_MAX) / LIFE_MAX)
    return np.asarray(windows, np.float32), np.asarray(lives, np.float32)


class Scaled(nn.Module):
    """The node feeds plain sensor values: scaling is a part of the net."""

    def __init__(self, mean, deviation, net, back=False):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.net, self.back = net, back

    def forward(self, window):
        answer = self.net((window - self.mean) / self.deviation)
        return answer * self.deviation + self.mean if self.back else answer


class DenseAutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(
            nn.Flatten(), nn.Linear(ROWS * COLUMNS, 64), nn.ReLU(), nn.Linear(64, 16), nn.Tanh(),
            nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, ROWS * COLUMNS),
        )

    def forward(self, x):
        return self.stack(x).reshape(-1, ROWS, COLUMNS)


class ConvAutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(
            nn.Conv1d(COLUMNS, 32, 5, stride=2, padding=2), nn.LeakyReLU(0.1),
            nn.Conv1d(32, 8, 3, padding=1), nn.ELU(),
            nn.ConvTranspose1d(8, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(32, COLUMNS, 3, padding=1),
        )

    def forward(self, x):
        return self.stack(x.transpose(1, 2)).transpose(1, 2)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(
            nn.Conv1d(COLUMNS, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(32, 48, 3, padding=2, dilation=2), nn.BatchNorm1d(48), nn.SiLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(48, 32), nn.GELU(),
            nn.Linear(32, 1),
        )

    def forward(self, x):
        return self.stack(x.transpose(1, 2))


class Recurrent(nn.Module):
    def __init__(self, kind, hidden, **options):
        super().__init__()
        self.cells = kind(COLUMNS, hidden, batch_first=True, **options)
        width = hidden * (2 if options.get("bidirectional") else 1)
        self.head = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, width=32, heads=4, layers=2, norm_first=False, activation="relu"):
        super().__init__()
        self.embed = nn.Linear(COLUMNS, width)
        self.place = nn.Parameter(torch.randn(1, ROWS, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, batch_first=True, norm_first=norm_first,
            activation=activation,
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x) + self.place).mean(dim=1))


class Sigmoid(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.sigmoid(self.net(x))


# Name, net, whether it answers with its input, exporter.
FAMILIES = {
    "dense_auto_encoder": (DenseAutoEncoder, True, "dynamo"),
    "conv_auto_encoder": (ConvAutoEncoder, True, "dynamo"),
    "conv_auto_encoder_torchscript": (ConvAutoEncoder, True, "torchscript"),
    "cnn": (Cnn, False, "dynamo"),
    "cnn_torchscript": (Cnn, False, "torchscript"),
    "lstm": (lambda: Recurrent(nn.LSTM, 64), False, "dynamo"),
    "lstm_stacked_torchscript": (
        lambda: Sigmoid(Recurrent(nn.LSTM, 32, num_layers=2)), False, "torchscript"),
    "gru": (lambda: Recurrent(nn.GRU, 64), False, "dynamo"),
    "gru_bidirectional_torchscript": (
        lambda: Recurrent(nn.GRU, 24, bidirectional=True), False, "torchscript"),
    "transformer": (Transformer, False, "dynamo"),
    "transformer_pre_norm_torchscript": (
        lambda: Transformer(norm_first=True, activation="gelu"), False, "torchscript"),
}


def train(net, windows, target):
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(windows)).split(256):
            answer = net(windows[batch])
            # An auto-encoder answers in the sensors' units, of which each counts the same.
            scale = net.deviation if net.back else 1.0
            loss = (((answer - target[batch]) / scale) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    return loss.item()


def export(net, path, exporter):
    example = (torch.zeros(2, ROWS, COLUMNS),)
    names = dict(input_names=["window"], output_names=["answer"])
    if exporter == "dynamo":
        batch = torch.export.Dim("batch")
        torch.onnx.export(net, example, path, dynamo=True, dynamic_shapes=({0: batch},),
                          external_data=False, **names)
    else:
        axes = {"window": {0: "batch"}, "answer": {0: "batch"}}
        torch.onnx.export(net, example, path, dynamo=False, dynamic_axes=axes, **names)


def main():
    torch.set_num_threads(1)
    windows, lives = training_windows(Path(sys.argv[1]))
    mean, deviation = windows.mean(axis=(0, 1)), windows.std(axis=(0, 1))
    windows, lives = torch.tensor(windows), torch.tensor(lives[:, None])
    for name, (build, back, exporter) in FAMILIES.items():
        if len(sys.argv) > 2 and name not in sys.argv[2:]:
            continue
        torch.manual_seed(SEED)
        net = Scaled(mean, deviation, build(), back)
        loss = train(net, windows, windows if back else lives)
        path = HERE / f"{name}.onnx"
        export(net, str(path), exporter)
        print(f"{name}: loss {loss:.4f}, {path.stat().st_size} bytes")


main()
