"""A recurrent and a convolutional net over the same windows, from PyTorch's default exporter."""

import numpy as np
import torch
from torch import nn

from fd001 import COLUMNS, LIFE_MAX, ROWS

BATCH = 128
# Of each sensor's spread, added anew in each epoch: 100 engines are few, and a net learns them by heart.
NOISE = 0.3


class Standardised(nn.Module):
    """The node feeds plain sensor values: what scales them belongs into the file."""

    def __init__(self, windows, net):
        super().__init__()
        flat = windows.reshape(-1, windows.shape[2]).astype(np.float64)
        self.register_buffer("mean", torch.tensor(flat.mean(axis=0), dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(1 / flat.std(axis=0), dtype=torch.float32))
        self.net = net

    def forward(self, window):
        return LIFE_MAX * self.net((window - self.mean) * self.scale)


class Recurrent(nn.Module):
    epochs, rate = 12, 3e-3

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(len(COLUMNS), 32, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        rows, _ = self.lstm(x)
        return self.head(rows[:, -1])


class Convolutional(nn.Module):
    epochs, rate = 10, 2e-3

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs in ((len(COLUMNS), 24), (24, 24), (24, 24)):
            layers += [nn.Conv1d(inputs, outputs, 5, padding=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(24 * ROWS, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.head(self.layers(x.transpose(1, 2)))


def train(kind, windows, lives, path, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = Standardised(windows, kind())
    x, y = torch.tensor(windows.copy()), torch.tensor(lives[:, np.newaxis])
    optimizer = torch.optim.AdamW(model.parameters(), lr=kind.rate, weight_decay=1e-2)
    batches = (len(x) + BATCH - 1) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, kind.rate, total_steps=kind.epochs * batches)
    for _ in range(kind.epochs):
        for drawn in torch.randperm(len(x)).split(BATCH):
            noisy = x[drawn] + NOISE / model.scale * torch.randn_like(x[drawn])
            loss = nn.functional.mse_loss(model(noisy) / LIFE_MAX, y[drawn] / LIFE_MAX)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    torch.onnx.export(
        model, (x[:2],), str(path), dynamo=True, external_data=False, verbose=False,
        input_names=["window"], output_names=["life"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
