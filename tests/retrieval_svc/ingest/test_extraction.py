"""Files to texts, and what hostile files do: they cost an error."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from penstock.errors import InvalidArgument, UnreadableDocument
from retrieval_svc.ingest.extraction import HTML, MARKDOWN, PDF, Extracted, Extractor
from retrieval_svc.ingest.reading_limits import ReadingLimits
from retrieval_svc.values import Document
from tests.retrieval_svc.ingest.pdfs import assembled, encrypted, pdf

PAGES = ["The first page.\nIts second line.", "The second page."]


@asynccontextmanager
async def extracting(
    *, timeout_s: float = 20.0, memory_bytes: int = 512 * 2**20, text_bytes_max: int = 2**22
) -> AsyncIterator[Extractor]:
    limits = ReadingLimits(timeout_s=timeout_s, memory_bytes=memory_bytes, text_bytes_max=text_bytes_max)
    extractor = Extractor(limits)
    try:
        yield extractor
    finally:
        await extractor.close()


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    async with extracting() as running:
        yield running


def file(content: bytes, content_type: str = PDF) -> Document:
    return Document(id="d", text="", content=content, content_type=content_type)


def reading_processes() -> list[psutil.Process]:
    children = psutil.Process(os.getpid()).children()
    return [child for child in children if "retrieval_svc.ingest.reading_process" in child.cmdline()]


async def still_reads(extractor: Extractor) -> bool:
    return (await extractor.extract(file(pdf(PAGES)))).text.startswith("The first page.")


async def test_text_comes_as_it_is_and_bytes_are_decoded(extractor: Extractor) -> None:
    assert await extractor.extract(Document(id="d", text="as it is")) == Extracted(text="as it is")
    assert await extractor.extract(file("\ufeffgrün".encode(), "")) == Extracted(text="grün")
    assert await extractor.extract(file("# grün".encode("latin-1"), f"{MARKDOWN}; charset=ISO-8859-1")) == Extracted(
        text="# grün"
    )
    assert reading_processes() == []


@pytest.mark.parametrize("content_type", ["", "text/plain", "text/markdown"])
async def test_bytes_that_are_not_utf8_are_told_with_their_place(extractor: Extractor, content_type: str) -> None:
    with pytest.raises(UnreadableDocument, match=r"'d' is not UTF-8: byte 5 \(0xff\)") as caught:
        await extractor.extract(file(b"12345\xff", content_type))
    assert caught.value.metadata["byte_offset"] == "5"


@pytest.mark.parametrize("charset", ["zip", "punycode", "unicode_escape", "no-such", "idna", "\0"])
async def test_a_charset_that_is_none_is_refused(extractor: Extractor, charset: str) -> None:
    with pytest.raises(UnreadableDocument, match="charset"):
        await extractor.extract(file(b"text", f"text/plain; charset={charset}"))


async def test_a_type_that_is_not_read_is_refused_with_those_that_are(extractor: Extractor) -> None:
    with pytest.raises(InvalidArgument, match=r"application/pdf.*not 'image/png'"):
        await extractor.extract(file(b"x", "image/png"))
    with pytest.raises(InvalidArgument, match="as content"):
        await extractor.extract(Document(id="d", text="%PDF-", content_type=PDF))


async def test_html_becomes_lines_without_code_and_navigation(extractor: Extractor) -> None:
    html = """<!doctype html><title>My
      page</title><style>p{}</style><nav>Home</nav><h1>Top <b>words</b></h1><p>One
      two<br>three &eacute;&#x20AC;</p><ul><li>a<li>b</ul><table><tr><th>n<td>1<tr><td>x<td>y</table>
      <pre>code\n  more</pre>tail<script>alert(1)</script><div hidden>secret</div><p>end"""
    read = await extractor.extract(file(html.encode(), HTML))
    text = "Top words\n\nOne two\nthree é€\n\na\nb\n\nn\t1\nx\ty\n\ncode\n  more\n\ntail\n\nend"
    assert read == Extracted(text=text, title="My page")
    marked = await extractor.extract(Document(id="d", text=html, content_type=HTML), mark_headings=True)
    assert marked.text.startswith("# Top words\n\nOne")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("<meta charset=windows-1252><p>grün".encode("cp1252"), HTML),
        ('<?xml version="1.0" encoding="iso-8859-1"?><p>grün'.encode("latin-1"), HTML),
        ("<p>grün".encode("cp1252"), "text/html; charset=cp1252"),
        ("<p>grün".encode("utf-16"), HTML),
        ("<meta charset=punycode><p>grün".encode(), HTML),
        ("\ufeff<meta charset=latin-1><p>grün".encode(), HTML),
    ],
)
async def test_html_is_decoded_as_it_says(extractor: Extractor, content: bytes, content_type: str) -> None:
    assert (await extractor.extract(file(content, content_type))).text == "grün"


@pytest.mark.parametrize(
    "html", ["<", "<p", "</p></div>x", "<table><td><h1>x", "<b><i></b>x", "\0<\xff>x", "<frameset>", "&#xD800;x", ""]
)
async def test_malformed_html_is_read_as_far_as_it_goes(extractor: Extractor, html: str) -> None:
    read = await extractor.extract(file(html.encode("latin-1"), HTML))
    assert "x" in read.text or "x" not in html
    assert not set(read.text) & set("\0\ud800")


async def test_a_pdf_becomes_its_pages_and_its_title(extractor: Extractor) -> None:
    read = await extractor.extract(file(pdf(PAGES, title="A report")))
    assert read == Extracted(text="The first page.\nIts second line.\n\nThe second page.", title="A report")


async def test_a_pdf_that_only_may_not_be_changed_is_read_and_one_with_a_password_refused(extractor: Extractor) -> None:
    assert "second page" in (await extractor.extract(file(encrypted(pdf(PAGES), user="", owner="o")))).text
    with pytest.raises(UnreadableDocument, match="encrypted; save it without a password"):
        await extractor.extract(file(encrypted(pdf(PAGES), user="secret", owner="o")))
    assert await still_reads(extractor)


GIBIBYTE_OF_SPACES = zlib.compress(b" " * 2**28, 9)
BROKEN = {
    "a byte": b"x",
    "no pdf": b"hello",
    "cut in the middle": pdf(PAGES)[:400],
    "noise": b"%PDF-1.4\n" + bytes(range(256)) * 40,
    "arrays in arrays": assembled([b"[" * 100_000 + b"]" * 100_000, b"<< >>"]),
    "pages in a circle": assembled(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 1 /Kids [2 0 R] >>", b"<< >>"]
    ),
    "a zip bomb": pdf([], streams=[GIBIBYTE_OF_SPACES]),
    "a bomb of layers": pdf([], streams=[zlib.compress(zlib.compress(b" " * 2**28, 9), 9)]),
    "scanned": pdf([""]),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_pdf_costs_one_clear_error(extractor: Extractor, name: str) -> None:
    with pytest.raises(UnreadableDocument, match="document 'd' cannot be read: ") as caught:
        await extractor.extract(file(BROKEN[name]))
    assert "\n" not in caught.value.message
    assert await still_reads(extractor)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(pdf([], streams=[zlib.compress(b"BT /F1 9 Tf (a) Tj ET\n" * 3_000_000)]), PDF), (b"<div>" * 300_000, HTML)],
    ids=["endless drawing", "deep nesting"],
)
async def test_a_file_that_takes_too_long_is_given_up_and_the_loop_never_waits(content: bytes, content_type: str) -> None:
    async with extracting(timeout_s=1.5) as extractor:
        reading = asyncio.create_task(extractor.extract(file(content, content_type)))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(UnreadableDocument, match=r"within 1\.5 s"):
            await reading
        assert turns > 20
    assert reading_processes() == []


@pytest.mark.slow
async def test_a_file_that_takes_too_much_memory_is_refused_and_the_process_replaced() -> None:
    stream = zlib.compress(b"BT /F1 9 Tf (abcdefgh) Tj ET\n" * 1_500_000)
    async with extracting(memory_bytes=200 * 2**20, timeout_s=60.0) as extractor:
        assert await still_reads(extractor)
        [before] = reading_processes()
        with pytest.raises(UnreadableDocument, match="memory"):
            await extractor.extract(file(pdf([], streams=[stream])))
        assert await still_reads(extractor)
        [after] = reading_processes()
        assert after.pid != before.pid


async def test_a_text_over_the_limit_is_refused_with_it() -> None:
    async with extracting(text_bytes_max=1000) as extractor:
        with pytest.raises(UnreadableDocument, match="1000"):
            await extractor.extract(file(pdf(["x" * 300] * 5)))
        with pytest.raises(UnreadableDocument, match="more than the 1000"):
            await extractor.extract(file(b"<p>" + b"x" * 1001, HTML))


async def test_one_process_serves_one_document_after_the_other(extractor: Extractor) -> None:
    await asyncio.gather(*(still_reads(extractor) for _ in range(5)))
    assert len(reading_processes()) == 1


async def test_a_process_that_is_killed_meanwhile_is_replaced_unnoticed(extractor: Extractor) -> None:
    assert await still_reads(extractor)
    [process] = reading_processes()
    process.kill()
    assert await still_reads(extractor)


async def test_a_caller_who_leaves_takes_the_process_along(extractor: Extractor) -> None:
    reading = asyncio.create_task(extractor.extract(file(b"<div>" * 300_000, HTML)))
    while not reading_processes():
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert reading_processes() == []
    assert await still_reads(extractor)


async def test_a_process_whose_starter_died_leaves(extractor: Extractor) -> None:
    assert await still_reads(extractor)
    [reader] = extractor._idle
    assert reader.process.stdin is not None
    reader.process.stdin.close()
    assert await asyncio.wait_for(reader.process.wait(), 30) == 0
