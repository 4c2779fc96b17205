"""The dashboard's files over HTTP: content, status codes and security headers."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.web.routes.dashboard import PAGES

STATIC = Path("service/dashboard/static")
FILES = sorted(str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def visitor():
    """A client without a key, and without a database: the pages hold nothing secret."""
    return TestClient(create_app(), raise_server_exceptions=False)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_the_app_shell(visitor, path):
    answer = visitor.get(path.replace("{_}", "01a21fdd-08c9-7762-af07-8b4c8b69799f"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.text == (STATIC / "index.html").read_text()


@pytest.mark.parametrize("path", ["/nonsense", "/jobs/none/none", "/data/images/x", "/robots.txt"])
def test_unknown_page_returns_the_app_shell_with_404_to_browsers(visitor, path):
    answer = visitor.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, follow_redirects=False)
    assert answer.status_code == 404
    assert answer.text == (STATIC / "index.html").read_text()
    assert answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("method", "path", "accept", "status"),
    [
        ("GET", "/nonsense", "*/*", 404),
        ("POST", "/nonsense", "text/html", 404),
        ("GET", "/v1/nonsense", "text/html", 404),
        ("POST", "/jobs", "text/html", 405),
        ("PUT", "/v1/jobs", "text/html", 405),
    ],
)
def test_unknown_path_returns_a_problem_document_to_programs(visitor, method, path, accept, status):
    answer = visitor.request(method, path, headers={"Accept": accept})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_routes_of_server_and_script_agree():
    script = (STATIC / "routes.js").read_text()
    patterns = re.findall(r"path: (?:/\^(.*?)\$/|new RegExp\(`\^(.*?)\$`\))", script)
    paths = {(plain or built).replace("\\/", "/").replace("(?<id>${ID})", "{_}") for plain, built in patterns}
    assert paths == set(PAGES)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served(visitor, name):
    answer = visitor.get(f"/dashboard/{name}")
    assert answer.status_code == 200
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["Content-Encoding"] == "gzip"
    again = visitor.get(f"/dashboard/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("name", "begins", "ratio"),
    [
        ("plotly.js", "plotly.js", 0.4),
        ("swagger-ui.js", "swagger-ui-bundle.js", 0.3),
        ("swagger-ui.css", "swagger", 0.2),
    ],
)
def test_packaged_files_are_served_compressed_or_not(visitor, name, begins, ratio):
    compressed = visitor.get(f"/dashboard/{name}")
    plain = visitor.get(f"/dashboard/{name}", headers={"Accept-Encoding": "identity"})
    assert compressed.content == plain.content
    assert begins in plain.text[:200]
    assert int(compressed.headers["Content-Length"]) < ratio * int(plain.headers["Content-Length"])


def test_docs_are_a_page_of_the_dashboard(visitor):
    answer = visitor.get("/docs")
    assert answer.text == (STATIC / "docs.html").read_text()
    assert answer.headers["Content-Security-Policy"] == visitor.get("/").headers["Content-Security-Policy"]
    assert visitor.get("/redoc", follow_redirects=False).headers["Location"] == "/docs"


@pytest.mark.parametrize(
    "name",
    ["../__init__.py", "..%2f__init__.py", "pages/../../__init__.py", "%2e%2e/__init__.py", "", "none.js", "pages"],
)
def test_no_other_file_is_served(visitor, name):
    answer = visitor.get(f"/dashboard/{name}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_content_security_policy_allows_no_other_hosts(visitor):
    headers = visitor.get("/").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & set(" ".join(policy.values()).split())
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_no_file_names_another_host():
    for name in FILES:
        addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", (STATIC / name).read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name  # a namespace, which is never requested


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_have_no_inline_scripts_or_styles(name):
    page = (STATIC / name).read_text()
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)
