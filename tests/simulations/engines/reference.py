"""A slow, obvious engine in float64: one customer's gradient at a time, by autograd; noise from numpy. The others are held to it."""

from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from federation.networks import build
from simulations.engines.draws import NOISE, drawn, stream


class Reference:
    name = "reference"

    @contextmanager
    def open(self, job):
        yield ReferenceSession(job)


class ReferenceSession:
    def __init__(self, job):
        self.job, self.layout = job, job.layout
        self.network = build(job.model, job.contract).double()
        self.controls = np.zeros((job.rows.institutions, self.layout.width))

    def combine(self, work, factors):
        return factors[work.present] @ self.releases(work)[work.present]

    def releases(self, work):
        found = np.zeros((self.job.rows.institutions, self.layout.width))
        for place in np.flatnonzero(work.present):
            found[place] = self.release(work, place)
        return found

    def release(self, work, place):
        start, noise = (
            work.weights.astype(np.float32).astype(np.float64),
            stream(self.job.seed, NOISE, work.number, place),
        )
        if work.local is None:
            return self.noisy_sum(work, place, 0, start, noise)
        local, rows = work.local, self.job.rows.of(place)
        mean = len(rows) if local.full else work.rate * self.job.declared[place]
        correction = 0.0 if local.control is None else local.control - self.controls[place]
        weights, velocity, path = start.copy(), np.zeros(len(start)), []
        for step in range(local.steps):
            velocity = local.momentum * velocity + self.noisy_sum(work, place, step, weights, noise) / mean
            direction = velocity + local.proximal * (weights - start) + correction
            weights = weights - local.rate * direction * (self.head() if local.head else 1.0)
            path.append(weights)
        change = (np.mean(path[local.steps // 2 :], axis=0) if local.tail else weights) - start
        if local.control is not None:
            self.controls[place] += -local.control - change / (local.steps * local.rate)
        return change

    def noisy_sum(self, work, place, step, weights, noise):
        full = work.local is not None and work.local.full
        first, last = self.job.rows.offsets[place : place + 2]
        who = np.arange(first, last)
        if not full:
            who = who[drawn(self.job.seed, work.number, step, int(first), int(last), work.rate)]
        gradients = [self.gradient(row, weights) for row in who]
        if full:
            return np.sum(gradients, axis=0)
        clipped = [g * min(1.0, work.clip[place] / max(np.linalg.norm(g), 1e-300)) for g in gradients]
        return np.sum(clipped, axis=0, initial=0.0) + work.noise[place] * noise.standard_normal(len(weights))

    def gradient(self, row, weights):
        rows = self.job.rows
        parameters = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, part in self.layout.split(weights).items():
                parameters[name].copy_(torch.from_numpy(part))
        logits = self.network(rows.dense[row : row + 1].double(), rows.codes[row : row + 1])
        loss = binary_cross_entropy_with_logits(logits, rows.labels[row : row + 1].double(), reduction="sum")
        loss.backward()
        found = self.layout.flat({name: parameters[name].grad.numpy() for name in self.layout.names})
        self.network.zero_grad()
        return found if np.isfinite(found).all() else np.zeros(len(found))

    def head(self):
        """1 where the last layer's coordinates lie."""
        names = self.layout.names
        last = names[-1].split(".")[0]
        return self.layout.flat(
            {
                name: np.full(shape, float(name.startswith(last)))
                for name, shape in zip(names, self.layout.shapes, strict=True)
            }
        )
