"""Published reports: signed, written once, never changed, and refused when they were."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.signing import public_hex, verify
from server.statistics.reports import CONTEXT, ReportBook, SealedReport, report_name
from tests.server.fakes import key_of
from tests.server.statistics.papers import answer, report

KEY: Ed25519PrivateKey = key_of("coordinator")
NAME = "people-" + "ab" * 6


@pytest.fixture
def book(tmp_path):
    return ReportBook(tmp_path / "reports")


def test_a_report_is_published_signed_and_read_back(book, tmp_path):
    published = book.publish(report(), KEY)
    assert report_name("people", "ab" * 32) == NAME
    assert published.path == tmp_path / "reports" / f"{NAME}.report.json"
    assert book.names() == [NAME]
    assert book.load(NAME) == book.load(NAME, public_hex(KEY)) == published
    assert published.report == report()
    verify(published.sealed.signature, CONTEXT, report(), public_hex(KEY))
    assert (tmp_path / "reports" / f"{NAME}.md").read_text().startswith("# Who they are\n")


def test_the_same_report_again_changes_nothing(book):
    first = book.publish(report(), KEY)
    content = first.path.read_bytes()
    assert book.publish(report(), KEY) == first
    assert first.path.read_bytes() == content
    assert book.names() == [NAME]


def test_another_report_of_the_same_study_is_refused_and_the_first_stays(book):
    first = book.publish(report(), KEY)
    content = first.path.read_bytes()
    with pytest.raises(IntegrityError, match="CSL-S785"):
        book.publish(report(title="Another"), KEY)
    with pytest.raises(IntegrityError, match="CSL-S785"):
        book.publish(report(), key_of("alpha"))
    assert first.path.read_bytes() == content


def test_a_report_written_without_its_page_gets_it_at_the_next_start(book, tmp_path):
    book.publish(report(), KEY)
    page = tmp_path / "reports" / f"{NAME}.md"
    page.unlink()
    book.publish(report(), KEY)
    assert page.read_text().startswith("# Who they are\n")


def test_reports_of_several_studies_stand_side_by_side(book):
    book.publish(report(), KEY)
    book.publish(report(study="cd" * 32, title="Anew"), KEY)
    assert book.names() == [NAME, "people-" + "cd" * 6]
    assert book.load("people-" + "cd" * 6).report.title == "Anew"


@pytest.mark.parametrize("name", ["absent", "", "../people", NAME + ".report.json", "."])
def test_what_is_not_there_is_named(book, name):
    book.publish(report(), KEY)
    with pytest.raises(DocumentError, match="CSL-S786"):
        book.load(name)


def test_an_empty_folder_has_no_report(book):
    assert book.names() == []


def test_a_report_by_another_key_is_refused(book):
    book.publish(report(), key_of("alpha"))
    book.load(NAME)
    with pytest.raises(IntegrityError, match="CSL-F20"):
        book.load(NAME, public_hex(KEY))


def test_a_signature_is_for_one_report_only(book):
    first = book.publish(report(), KEY)
    other = SealedReport(report=report(answers=(answer(title="Other"),)), signature=first.sealed.signature)
    first.path.write_bytes(other.canonical())
    with pytest.raises(IntegrityError, match="CSL-F20"):
        book.load(NAME)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(book, data):
    path = book.publish(report(), KEY).path
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda item: item != content[place]))
    try:
        path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        with pytest.raises(ConsilienceError, match="CSL-(S787|F20)"):
            book.load(NAME, public_hex(KEY))
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b"\xff", b"null"])
def test_what_is_no_report_is_refused(book, content):
    path = book.publish(report(), KEY).path
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="CSL-S787"):
        book.load(NAME)
