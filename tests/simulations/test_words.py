from hypothesis import given
from hypothesis import strategies as st

from simulations.words import THIN, count, scientific, share, size


@given(value=st.integers(0, 10**12))
def test_a_count_reads_back(value: int) -> None:
    assert int(count(value).replace(THIN, "")) == value


@given(value=st.integers(0, 10**9))
def test_a_size_is_short_and_close(value: int) -> None:
    number, unit = size(value).split(" ")
    scale = {"bytes": 1, "KiB": 1024, "MiB": 1024**2}[unit]
    assert abs(float(number) * scale - value) <= max(scale / 2, 0.05 * scale + 1)


def test_shares_and_deltas() -> None:
    assert share(0.316) == f"32{THIN}%"
    assert share(0.0071) == f"0.7{THIN}%"
    assert scientific(1.6e-6) == f"1.6{THIN}·{THIN}10⁻⁶"
