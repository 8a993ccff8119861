"""Static files have names with their digest, are kept for good under these, and compressed; pages are compressed."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.http import HttpResponse

from boilerhouse.web.compression import CompressedPages
from boilerhouse.web.lean_files import lean, lean_page
from boilerhouse.web.static_files import HashedStorage, StaticFiles

STATIC = Path(__file__).resolve().parents[2] / "static"
BROWSER = {"Accept-Encoding": "gzip, deflate, br"}


def body(answer) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_a_page_names_only_files_that_browsers_may_keep(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    names = set(re.findall(r'(?:src|href|data-\w+)="(/static/[^"]+)"', client.get("/").content.decode()))
    assert len(names) > 8
    for name in names:
        answer = client.get(name, headers=BROWSER)
        assert answer.status_code == 200, name
        assert "immutable" in answer["Cache-Control"], name
        assert re.search(r"\.[0-9a-f]{12}\.\w+$|/vendor/[^/]+-\d+\.\d+\.\d+/", name), name


def test_a_hashed_file_is_what_its_source_is_and_compressed_for_who_takes_that(client):
    url = staticfiles_storage.url("app.js")
    source = (STATIC / "app.js").read_bytes()
    packed, plain = client.get(url, headers=BROWSER), client.get(url)
    assert packed["Content-Encoding"] == "gzip"
    assert packed["Vary"] == plain["Vary"] == "Accept-Encoding"
    content = body(packed)
    assert len(content) == int(packed["Content-Length"]) < len(source) / 2
    assert body(plain) == source
    assert gzip.decompress(content) == lean("app.js", source)
    assert "Content-Encoding" not in plain
    assert client.get(url, headers={**BROWSER, "If-None-Match": packed["ETag"]}).status_code == 304
    assert body(client.head(url, headers=BROWSER)) == b""
    assert client.post(url).status_code == 405
    part = client.get(url, headers={**BROWSER, "Range": "bytes=0-9"})
    assert (part.status_code, body(part)) == (206, source[:10])


def test_a_font_is_kept_for_good_by_its_version_and_not_compressed_again(client):
    [font] = STATIC.glob("vendor/*/*.woff2")
    answer = client.get(f"/static/{font.relative_to(STATIC)}", headers=BROWSER)
    assert "immutable" in answer["Cache-Control"]
    assert "Content-Encoding" not in answer


def test_style_sheets_refer_only_to_versioned_files():
    """Their text is not rewritten, so what they name must not change under its name."""
    for sheet in STATIC.glob("*.css"):
        for target in re.findall(r'url\("?([^")]+)"?\)', sheet.read_text()):
            assert re.match(r"vendor/[^/]+-\d+\.\d+\.\d+/", target), (sheet.name, target)


@pytest.mark.parametrize("name", ["app.js", "app.000000000000.js"])
def test_a_name_without_the_digest_of_the_file_is_served_but_not_kept(client, name):
    """So a page of another version of the product still has its scripts."""
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 200
    assert "immutable" not in answer["Cache-Control"]
    assert client.get("/static/none.000000000000.js").status_code == 404


def test_names_that_no_page_uses_are_not_kept_in_memory():
    """Anybody may request any number of them."""
    served = StaticFiles(lambda _request: None)
    [script] = STATIC.glob("vendor/uplot-*/*.js")
    plain = f"/static/{script.relative_to(STATIC)}"
    assert served._file(plain) is not None
    kept = len(served._immutable)
    for number in range(5):
        served._file(f"{plain.removesuffix('.js')}.{number:012x}.js")
        served._file(f"/static/app.{number:012x}.js")
    assert len(served._immutable) == kept


def test_collectstatic_writes_the_hashed_files_for_a_server_in_front(settings, tmp_path):
    settings.STATIC_ROOT = str(tmp_path)
    call_command("collectstatic", interactive=False, verbosity=0)
    name = HashedStorage().hashed_name("app.js")
    assert re.fullmatch(r"app\.[0-9a-f]{12}\.js", name)
    assert (tmp_path / name).read_bytes() == (STATIC / "app.js").read_bytes()
    packed = gzip.decompress((tmp_path / f"{name}.gz").read_bytes())
    assert packed == lean("app.js", (STATIC / "app.js").read_bytes())


def test_our_files_are_sent_without_comments_and_indentation_and_keep_their_lines():
    for file in (*STATIC.glob("*.css"), *STATIC.glob("*.js")):
        source = file.read_bytes()
        sent = lean(file.name, source)
        assert len(sent) < len(source), file.name
        assert sent.count(b"\n") == source.count(b"\n"), file.name


@pytest.mark.parametrize(
    ("name", "source", "sent"),
    [
        ("a.css", 'a::before {\n  content: "/* kept */";\n}\n', 'a::before {\ncontent: "/* kept */";\n}\n'),
        ("a.css", "/* one\n   two */\na { b: c }\n", "\n\na { b: c }\n"),
        ("a.css", "a { b: 'it\\'s /* kept */' }", "a { b: 'it\\'s /* kept */' }"),
        ("a.js", "  // one\n  two(); // three\n", "\ntwo(); // three\n"),
        ("a.js", 'const a = "http://b"; /* c */\n', 'const a = "http://b"; /* c */\n'),
        ("a.js", "const text = `\n  kept\n  // kept\n`;\n", "const text = `\n  kept\n  // kept\n`;\n"),
        ("admin/a.js", "  // theirs\n", "  // theirs\n"),
        ("vendor/a-1.0.0/a.css", "  /* licence */ a {}", "  /* licence */ a {}"),
        ("a.svg", "  <svg/>", "  <svg/>"),
    ],
)
def test_what_is_left_out_changes_nothing(name, source, sent):
    assert lean(name, source.encode()) == sent.encode()


@pytest.mark.parametrize(
    ("page", "sent"),
    [
        ("<ul>\n    <li>a  b\n    c</li>\n\n  </ul>\n", "<ul>\n<li>a  b\n    c</li>\n</ul>\n"),
        ("<b>a</b> <i>b</i><i>c</i>", "<b>a</b> <i>b</i><i>c</i>"),
        ("<p>\n  <pre>\n  <b>x</b>\n  <i>y</i></pre>\n  <p>", "<p>\n<pre>\n  <b>x</b>\n  <i>y</i></pre>\n<p>"),
        ('<textarea class="x">\n  </textarea>\n  <p>', '<textarea class="x">\n  </textarea>\n<p>'),
        ('<input\n  value="a\n    b"\n>\n  <p>', '<input\n  value="a\n    b"\n>\n<p>'),
    ],
)
def test_a_page_is_sent_without_its_indentation(page, sent):
    assert lean_page(page.encode()) == sent.encode()


@pytest.mark.parametrize("path", ["/", "/pools/", "/activity/", "/pools/new"])
def test_pages_are_compressed(client, db, data_dir, path):
    client.force_login(User.objects.create_superuser("ada"))
    answer = client.get(path, headers=BROWSER)
    assert answer["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in answer["Vary"]
    assert len(answer.content) < len(client.get(path).content) / 2
    page = gzip.decompress(answer.content)
    assert b"<!DOCTYPE html>" in page
    assert lean_page(page) == page


def test_a_page_too_short_to_be_compressed_has_its_own_length(rf):
    def short(request):
        page = HttpResponse("<ul>\n    <li>a</li>\n  </ul>\n")
        page["Content-Length"] = str(len(page.content))
        return page

    answer = CompressedPages(short)(rf.get("/", headers=BROWSER))
    assert "Content-Encoding" not in answer
    assert answer["Content-Length"] == str(len(answer.content))


def test_what_shows_a_secret_is_not_compressed(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    key = client.post("/settings/keys/", {"name": "gateway", "role": "viewer", "lifetime": "90"}, headers=BROWSER)
    assert b"bh_" in key.content
    assert "Content-Encoding" not in key
