"""PDFs for tests, written by hand."""

import io
import zlib
from collections.abc import Sequence

import pypdf


def pdf(pages: Sequence[str], *, title: str = "", streams: Sequence[bytes] = ()) -> bytes:
    """A PDF of these pages, each a text of lines. `streams`: compressed contents in place of the pages' own."""
    contents = list(streams) or [zlib.compress(_content(page)) for page in pages]
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(contents)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, content in enumerate(contents):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * at} 0 R "
        objects.append(page.encode() + b"/Resources << /Font << /F1 3 0 R >> >> >>")
        header = f"<< /Filter /FlateDecode /Length {len(content)} >>\nstream\n".encode()
        objects.append(header + content + b"\nendstream")
    objects.append(f"<< /Title ({title}) >>".encode())
    return assembled(objects)


def assembled(objects: Sequence[bytes]) -> bytes:
    """A file of these objects, the first its root and the last its information."""
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(f"{number} 0 obj\n".encode() + body + b"\nendobj\n")
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.writelines(f"{place:010} 00000 n \n".encode() for place in places)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return out.getvalue() + trailer.encode()


def encrypted(content: bytes, *, user: str, owner: str) -> bytes:
    """The same PDF, encrypted."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt(user, owner, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _content(page: str) -> bytes:
    lines = "".join(f"({line}) Tj T*\n" for line in page.split("\n"))
    return f"BT /F1 12 Tf 14 TL 72 720 Td\n{lines}ET".encode("latin-1")
