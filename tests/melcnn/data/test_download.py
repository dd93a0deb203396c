"""The downloader against a server on loopback that is slow, breaks off, lies, or sends another file."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from melcnn import InputError
from melcnn.data import download
from melcnn.data.download import RemoteFile, fetch

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


class Server:
    """Serves CONTENT by a script of behaviours, one a request; the last one stays."""

    def __init__(self, *behaviours):
        self.behaviours = list(behaviours)
        self.ranges = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.ranges.append(self.headers.get("Range"))
                behaviour = outer.behaviours.pop(0) if len(outer.behaviours) > 1 else outer.behaviours[0]
                behaviour(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.file = RemoteFile(
            f"http://127.0.0.1:{self.http.server_port}/speech.tar.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
        )


def send(handler, body, length=None, resumable=True, content=CONTENT):
    start = int(handler.headers["Range"][6:-1]) if resumable and handler.headers.get("Range") else 0
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    whole = content[start:]
    handler.send_header("Content-Length", str(len(whole) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body(whole))


def honest(handler):
    send(handler, lambda whole: whole)


def breaks_off(handler):
    send(handler, lambda whole: whole[:100_000])


def starts_over(handler):
    send(handler, lambda whole: whole, resumable=False)


def lies_short(handler):
    send(handler, lambda whole: whole[:50_000], length=50_000)


def wrong_range(handler):
    """Answers a request for the rest with the beginning, and says so in Content-Range."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


def another_file(handler):
    send(handler, lambda whole: whole, content=CONTENT[::-1])


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass


def refuses(handler):
    handler.send_error(404)


def stalls(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.wfile.flush()
    threading.Event().wait(1.0)


@pytest.fixture
def serve():
    servers = []

    def start(*behaviours):
        servers.append(Server(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.mark.parametrize(
    "behaviours",
    [
        [honest],
        [breaks_off, honest],
        [breaks_off] * 4 + [honest],
        [breaks_off, starts_over],
        [breaks_off, wrong_range],
        [lies_short, honest],
        [refuses, honest],
        [lies_short, refuses, breaks_off, refuses, honest],
    ],
    ids=lambda behaviours: " ".join(b.__name__ for b in behaviours),
)
def test_it_comes_whole(serve, tmp_path, behaviours):
    server, heard = serve(*behaviours), []
    path = fetch(server.file, tmp_path, lambda done, total: heard.append((done, total)), pause=lambda s: None)
    assert path.read_bytes() == CONTENT and [p.name for p in tmp_path.iterdir()] == ["speech.tar.gz"]
    assert heard[-1] == (len(CONTENT), len(CONTENT))


def test_a_second_fetch_asks_for_nothing_and_a_spoilt_file_comes_again(serve, tmp_path):
    server = serve(honest)
    path = fetch(server.file, tmp_path)
    fetch(server.file, tmp_path)
    assert len(server.ranges) == 1
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT and len(server.ranges) == 2


def test_it_goes_on_in_a_later_call(serve, tmp_path):
    server = serve(breaks_off, refuses)
    with pytest.raises(InputError, match=r"cannot be fetched \(Not Found\); 100000 of 512000 bytes are kept"):
        fetch(server.file, tmp_path, pause=lambda s: None)
    assert [p.name for p in tmp_path.iterdir()] == ["speech.tar.gz.part"]
    server.behaviours[:] = [honest]
    assert fetch(server.file, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


@pytest.mark.parametrize("behaviour", [another_file, endless], ids=lambda b: b.__name__)
def test_another_file_is_refused_and_removed(serve, tmp_path, behaviour):
    with pytest.raises(InputError, match="another file than the official one") as caught:
        fetch(serve(behaviour).file, tmp_path)
    assert not list(tmp_path.iterdir()) and "\n" not in str(caught.value)


def test_a_server_that_stalls_or_is_not_there(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server = serve(stalls, honest)
    assert fetch(server.file, tmp_path, pause=lambda s: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"], "what came before the stall was kept"
    gone = RemoteFile("http://127.0.0.1:1/gone.tar.gz", 10, "00")
    with pytest.raises(InputError, match="cannot be fetched .*refused"):
        fetch(gone, tmp_path, pause=lambda s: None)


def test_tries_that_bring_nothing_pause_longer_and_longer(serve, tmp_path):
    pauses = []
    with pytest.raises(InputError):
        fetch(serve(refuses).file, tmp_path, pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0]


def test_our_constants_are_torchaudios():
    from torchaudio.datasets import speechcommands

    file = download.SPEECH_COMMANDS
    (theirs,) = [sha256 for url, sha256 in speechcommands._CHECKSUMS.items() if url.endswith(f"/{file.name}")]
    assert theirs == file.sha256


def test_with_an_open_mask_a_download_is_still_not_open_to_everybody(serve, tmp_path):
    before = os.umask(0)
    try:
        path = fetch(serve(honest).file, tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664
