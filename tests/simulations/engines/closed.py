"""A quick obvious engine for linear models, by the closed form: whole trainings in tests of what is the same for every engine."""

from contextlib import contextmanager

import numpy as np

from simulations.engines.draws import NOISE, drawn, stream


class Closed:
    name = "closed"

    def __init__(self):
        self.sessions = []

    @contextmanager
    def open(self, job):
        session = ClosedSession(job)
        self.sessions.append(session)
        yield session


class ClosedSession:
    def __init__(self, job):
        self.job, self.works = job, []
        self.controls = np.zeros((job.rows.institutions, job.layout.width))

    def combine(self, work, factors):
        self.works.append((work, factors))
        return factors @ self.releases(work)

    def releases(self, work):
        found = np.zeros((self.job.rows.institutions, self.job.layout.width))
        for place in np.flatnonzero(work.present):
            found[place] = self._release(work, place)
        return found

    def _release(self, work, place):
        start, local = work.weights.astype(np.float32).astype(np.float64), work.local
        if local is None:
            return self._sum(start, work, place, 0)
        rows = self.job.rows.of(place)
        mean = len(rows) if local.full else work.rate * self.job.declared[place]
        drift = 0.0 if local.control is None else local.control - self.controls[place]
        at, velocity, path = start.copy(), 0.0, []
        for step in range(local.steps):
            velocity = local.momentum * velocity + self._sum(at, work, place, step) / mean
            at = at - local.rate * (velocity + local.proximal * (at - start) + drift)
            path.append(at)
        change = (np.mean(path[local.steps // 2 :], axis=0) if local.tail else at) - start
        if local.control is not None:
            self.controls[place] += -local.control - change / (local.steps * local.rate)
        return change

    def _sum(self, at, work, place, step):
        rows, full = self.job.rows.of(place), work.local is not None and work.local.full
        first, last = self.job.rows.offsets[place : place + 2]
        who = drawn(self.job.seed, work.number, step, first, last, 1.0 if full else work.rate)
        x = np.c_[rows.dense.numpy().astype(np.float64), np.ones(len(rows))][who]
        slope = 1.0 / (1.0 + np.exp(-x @ at)) - rows.labels.numpy()[who]
        if full:
            return slope @ x
        limit = work.clip[place] / np.linalg.norm(x, axis=1)
        noise = stream(self.job.seed, NOISE, work.number, place, step).standard_normal(len(at))
        return np.clip(slope, -limit, limit) @ x + work.noise[place] * noise
