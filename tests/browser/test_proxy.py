"""kotrain below a path of nginx, with the configuration that the documentation gives."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from kotrain import Client
from tests.acceptance.lab import JOB, Api
from tests.browser.visitor import Visitor
from tests.streams import Listener
from tests.waiting import until

EXAMPLE = Path(__file__).parents[2] / "docs/deploy/nginx.conf"
PREFIX = "/kotrain"
SETTINGS = {
    "KOTRAIN_PATH_PREFIX": PREFIX,
    "KOTRAIN_HOSTS": "lab.example",
    "KOTRAIN_TRUSTED_PROXIES": "127.0.0.1",
}
OTHER_LINES = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {example}
}}
"""
"""What a distribution's nginx.conf has beside the example."""


@pytest.fixture(scope="module")
def api(schema: None) -> Iterator[Api]:
    api = Api(SETTINGS)
    yield api.ready()
    api.end()


@pytest.fixture(scope="module")
def url(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of kotrain behind nginx, which serves it without TLS."""
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    example = re.sub(r"ssl_certificate.*;", "", EXAMPLE.read_text())
    example = example.replace("listen 443 ssl", f"listen 127.0.0.1:{port}").replace(
        "127.0.0.1:8000", f"127.0.0.1:{api.port}"
    )
    (folder / "nginx.conf").write_text(OTHER_LINES.format(folder=folder, example=example))
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    assert nginx is not None, "install it with `make tools`"
    process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}{PREFIX}/healthz"))
        yield f"http://127.0.0.1:{port}{PREFIX}"
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def test_clients(url: str, key: str) -> None:
    """The SDK, a large upload, an event stream, `Location` and the OpenAPI document."""
    table = "a,b,label\n" + "".join(f"{n * 0.37:.6f},{n * n % 97},{n % 2}\n" for n in range(150_000))
    headers = {"Authorization": f"Bearer {key}"}
    with Client(url, key) as client, httpx2.Client(trust_env=False, headers=headers) as http:
        job = client.submit(JOB)
        stream = Listener(f"{url}/v1/jobs/{job.id}/events", key)
        stream.wait_for_events()
        client.cancel(job.id)
        assert stream.wait_until_end().statuses() == ["queued", "cancelled"]
        uploaded = http.post(f"{url}/v1/datasets", params={"name": "large", "format": "csv"}, content=table)
        assert uploaded.status_code == 201, uploaded.text
        assert len(table) > 2**21
        assert uploaded.headers["Location"] == f"{PREFIX}/v1/datasets/tables/large"
        assert http.get(f"{url}/openapi.json").json()["servers"] == [{"url": PREFIX}]
        assert http.get(f"{url}/redoc", follow_redirects=True).url.path == f"{PREFIX}/docs"


def test_dashboard(url: str, browser: Browser, key: str) -> None:
    """Pages, links, addresses and files are below the prefix."""
    with Client(url, key) as client:
        job = client.submit(JOB)
    visitor = Visitor(browser, url)
    page = visitor.open("/jobs?user=ada")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{url}/jobs?user=ada")
    expect(page.get_by_role("navigation", name="Pages").locator("[aria-current]")).to_have_text("Jobs")
    page.get_by_role("link", name=str(job.id)[-8:]).click()
    expect(page).to_have_url(f"{url}/jobs/{job.id}")
    expect(page.get_by_text("queued").first).to_be_visible()
    page.reload()
    expect(page.get_by_text("queued").first).to_be_visible()
    page.get_by_role("link", name="New job").click()
    expect(page).to_have_url(f"{url}/jobs/new")
    visitor.open("/docs")
    expect(page.get_by_text("Submit a job").first).to_be_visible()
    visitor.close()
    assert all(requested.startswith((f"{url}/", "data:", f"blob:{url}")) for requested in visitor.requests)


def test_names_and_addresses(url: str, api: Api) -> None:
    """The name that browsers use is known, and the log has the address of the client, not of the proxy."""
    transport = httpx2.HTTPTransport(local_address="127.0.0.7")
    with httpx2.Client(transport=transport, trust_env=False) as client:
        statuses = [
            client.get(f"{url}/jobs", headers={"Host": name}).status_code for name in ("lab.example", "other.example")
        ]
    assert statuses == [200, 421]
    until(lambda: re.search(r"127\.0\.0\.7:\d+ - \"GET (/kotrain)?/jobs ", api.log()))


def test_prefix_may_be_removed_by_the_proxy(api: Api) -> None:
    """As some proxies do by default, and as health checks of the process itself are."""
    for path in ("/healthz", f"{PREFIX}/healthz", "/", PREFIX, f"{PREFIX}/"):
        assert httpx2.get(api.url + path, trust_env=False).status_code == 200
    page = httpx2.get(f"{api.url}/jobs", trust_env=False).text
    assert f'src="{PREFIX}/dashboard/main.js"' in page
    assert httpx2.get(f"{api.url}{PREFIX}s/healthz", trust_env=False).status_code == 404
