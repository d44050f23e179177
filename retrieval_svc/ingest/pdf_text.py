"""The text of a PDF, by pypdf. Runs in the reading process: a PDF is a program, and some are made to exhaust who runs them."""

import io
from typing import Final

import pypdf
from pypdf.errors import DependencyError, LimitReachedError

from retrieval_svc.ingest.reading_limits import UnreadableError

PAGES_MAX: Final = 20_000


def pdf_text(content: bytes, *, text_chars_max: int) -> tuple[str, str]:
    """Text, a paragraph a page, and title. Raises UnreadableError with what to do about it."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        _decrypt(reader)
        return _pages(reader, text_chars_max), _title(reader)
    except DependencyError as error:
        message = "the PDF is encrypted in a way that is not supported here; save it without a password"
        raise UnreadableError(message) from error
    except LimitReachedError as error:
        message = f"the PDF unpacks to more than is read of one document ({error}); split it"
        raise UnreadableError(message) from error
    except RecursionError as error:
        message = "the PDF is broken (its objects nest without end); repair it, or print it to a new PDF"
        raise UnreadableError(message) from error
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # pypdf raises anything for what is broken: KeyError, TypeError, struct.error, ...
        message = f"the PDF is broken ({type(error).__name__}: {str(error)[:200]}); repair it, or print it to a new PDF"
        raise UnreadableError(message) from error


def _decrypt(reader: pypdf.PdfReader) -> None:
    """Opens what needs no password to be read, only one to be changed."""
    if reader.is_encrypted and not reader.decrypt(""):
        message = "the PDF is encrypted; save it without a password"
        raise UnreadableError(message)


def _pages(reader: pypdf.PdfReader, text_chars_max: int) -> str:
    count = len(reader.pages)
    if count > PAGES_MAX:
        message = f"the PDF has {count} pages, and at most {PAGES_MAX} are read of one document; split it"
        raise UnreadableError(message)
    texts, length = list[str](), 0
    for page in reader.pages:
        texts.append(page.extract_text().strip())
        length += len(texts[-1])
        if length > text_chars_max:
            message = f"the PDF has more than {text_chars_max} characters of text; split it"
            raise UnreadableError(message)
    if not length:
        message = f"the {count} pages of the PDF hold no text; if they are pictures of text, recognise it (OCR) first"
        raise UnreadableError(message)
    return "\n\n".join(filter(None, texts))


def _title(reader: pypdf.PdfReader) -> str:
    try:
        title = reader.metadata.title if reader.metadata else None
    except Exception:  # noqa: BLE001  # A title is not worth a document.
        return ""
    return title.strip() if isinstance(title, str) else ""
