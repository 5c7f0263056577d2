"""Sources: what they promise, and that neither threads nor forks share a stream."""

import os
import threading

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from federation.errors import PolicyError
from privacy.randomness import ByteSource, Keystream, RandomSource, SystemSource, require_system
from simulations.seeded import SeededSource


class ReplaySource(ByteSource):
    """Bytes that a test wrote down."""

    seeded = True

    def __init__(self, content: bytes) -> None:
        self._content = content

    def fill(self, out: memoryview) -> None:
        out[:] = self._content[: len(out)]
        self._content = self._content[len(out) :]


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=4))
def test_keystream_is_one_stream_of_aes_ctr_however_it_is_cut(sizes: list[int]) -> None:
    key = bytes(range(32))
    stream = Keystream(key)
    parts = []
    for size in sizes:
        part = bytearray(b"\xff" * size)
        stream.fill(memoryview(part))
        parts.append(bytes(part))
    expected = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(sum(sizes)))
    assert b"".join(parts) == expected
    assert stream.used == sum(sizes)


def test_seeded_source_repeats_and_differs_by_seed() -> None:
    assert SeededSource(7).bytes(100) == SeededSource("7").bytes(100)
    assert SeededSource(7).bytes(100) != SeededSource(8).bytes(100)
    assert SeededSource(7).integers64(2).tolist() == [
        int.from_bytes(SeededSource(7).bytes(16)[start : start + 8], "little") for start in (0, 8)
    ]


@pytest.mark.parametrize("source", [SystemSource(), SeededSource(1)], ids=["system", "seeded"])
def test_shapes_types_and_ranges(source: RandomSource) -> None:
    assert source.bytes(0) == b"" and len(source.bytes(33)) == 33
    assert source.integers64(0).shape == (0,)
    integers, uniform, normal = source.integers64(1000), source.uniform(1000), source.normal(1000)
    assert (integers.dtype, uniform.dtype, normal.dtype) == (np.uint64, np.float64, np.float64)
    assert integers.flags.writeable
    assert 0.0 < uniform.min() and uniform.max() < 1.0


def test_uniform_draws_again_instead_of_zero_and_never_reaches_one() -> None:
    words = np.array([0, 2047, 2**64 - 1, 1 << 63, 0, 2048], dtype="<u8")  # the last two replace the first two
    values = ReplaySource(words.tobytes() + np.array([4096], dtype="<u8").tobytes()).uniform(4)
    assert values.tolist() == [2 * 2.0**-53, 2.0**-53, 1.0 - 2.0**-53, 0.5]


def test_laws() -> None:
    source = SeededSource("laws")
    counts = np.bincount((source.integers64(1 << 18) >> np.uint64(56)).astype(np.int64), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(source.uniform(100_000), "uniform").pvalue > 1e-4
    assert stats.kstest(source.normal(100_000), "norm").pvalue > 1e-4


def test_system_source_takes_a_new_key_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []

    def numbered(size: int) -> bytes:
        keys.append(bytes([len(keys)]) * size)
        return keys[-1]

    monkeypatch.setattr(os, "urandom", numbered)
    source = SystemSource(rekey_bytes=64)
    drawn = source.bytes(160)
    assert [len(key) for key in keys] == [32, 32, 32]
    expected = b""
    for key, size in zip(keys, (64, 64, 32), strict=True):
        part = bytearray(size)
        Keystream(key).fill(memoryview(part))
        expected += part
    assert drawn == expected


def test_a_forked_child_draws_something_else() -> None:
    source = SystemSource()
    source.bytes(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.bytes(32))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read()
    assert len(theirs) == 32
    assert theirs != source.bytes(32)


def test_threads_never_share_a_stream() -> None:
    for source in (SystemSource(), SeededSource(3)):
        drawn: list[bytes] = []

        def work(source: ByteSource = source, drawn: list[bytes] = drawn) -> None:
            drawn.extend(source.bytes(16) for _ in range(200))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(drawn)) == 1600


def test_the_vault_refuses_a_seeded_source() -> None:
    require_system(SystemSource())
    with pytest.raises(PolicyError) as caught:
        require_system(SeededSource(1))
    assert caught.value.code == "CSL-P101"
