"""The registry, and fetching from a server on this machine that breaks off and lies."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from syncdiff.pipeline.weights import published
from syncdiff.pipeline.weights.published import (
    WeightEntry,
    WeightsError,
    fetch,
    find,
    registry,
    require,
    status,
    verify,
)

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the next answers hold, and what was asked."""

    url: str = ""
    content: bytes = CONTENT
    break_after: int | None = None
    asked: int = 0


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            self.wfile.write(state.content[: state.break_after])
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def entry(server: Server, sha256: str | None = DIGEST, path: str = "/w.pth") -> WeightEntry:
    return WeightEntry("w", "w.pth", (server.url + path,), "tests", "none", "nowhere", sha256)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SYNCDIFF_WEIGHTS, cache and hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SYNCDIFF_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path


def test_registry_is_sound() -> None:
    entries = registry()
    assert len({one.name for one in entries}) == len({one.file for one in entries}) == len(entries)
    for one in entries:
        assert one.urls and all(url.startswith("https://") for url in one.urls)
        assert one.used_by and one.licence and one.published_at.startswith("https://")
        assert one.sha256 is None or (len(one.sha256) == 64 and int(one.sha256, 16) >= 0)
    by_name = {one.name: one for one in entries}
    for name in (
        "s3fd",
        "fan",
        "fan-1.4",
        "inception",
        "alexnet",
    ):  # hub names end in the hash's first digits
        stem = by_name[name].file.split(".")[0]
        digest = by_name[name].sha256
        assert digest is not None and digest.startswith(stem.rpartition("-")[2])
    assert {one.sha256 for one in entries if one.name.startswith("avhubert")} == {None}


def test_fetch_and_find_again(server: Server, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = entry(server)
    got = fetch(one)
    assert (got.path, got.sha256, got.verified) == (here / "weights/w.pth", DIGEST, True)
    assert got.path.read_bytes() == CONTENT
    assert got.path.stat().st_mode & 0o777 == 0o644, "others may read it"
    assert [path.name for path in (here / "weights").iterdir()] == ["w.pth"]
    assert fetch(one) == got and server.asked == 1  # the second time nothing is asked
    monkeypatch.setattr(published, "registry", lambda: (one,))
    assert find("w") == require("w.pth") == got
    assert [(line.path, line.state) for line in status(check=True)] == [(got.path, "verified")]


@pytest.mark.parametrize("sha256", [DIGEST, None])
def test_a_download_that_breaks_off_leaves_nothing(server: Server, here: Path, sha256: str | None) -> None:
    server.break_after = 300_000
    with pytest.raises(WeightsError, match="300000 bytes read, 724000 more expected"):
        fetch(entry(server, sha256))
    assert list((here / "weights").iterdir()) == []
    server.break_after = None
    assert fetch(entry(server, sha256)).path.read_bytes() == CONTENT


def test_progress_is_shown_where_it_is_asked_for(
    server: Server, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(entry(server), here / "quiet")
    assert capsys.readouterr() == ("", "")
    fetch(entry(server), here / "shown", progressbar=True)
    assert "1.02M/1.02M" in capsys.readouterr().err


def test_no_way_leads_from_https_to_http() -> None:
    response = requests.Response()
    response.status_code, response.url = 302, "https://a.example/w.pth"
    for target, refused in (("http://b.example/w.pth", True), ("https://b.example/w.pth", False)):
        response.headers["Location"] = target
        with pytest.raises(OSError, match="not https: http:") if refused else nullcontext():
            published._refuse_downgrade(response)


def test_a_wrong_hash_is_not_accepted(server: Server, here: Path) -> None:
    with pytest.raises(WeightsError, match="another hash"):
        fetch(entry(server, "0" * 64))
    assert list((here / "weights").iterdir()) == []


def test_the_next_address_is_tried(server: Server, here: Path) -> None:
    one = entry(server)
    assert fetch(replace(one, urls=(server.url + "/gone", *one.urls))).verified
    with pytest.raises(WeightsError, match="404") as error:
        fetch(replace(one, file="v.pth", urls=(server.url + "/gone",)))
    assert "syncdiff-prep weights fetch w" in str(error.value)


def test_missing_weights_say_where_they_are(here: Path) -> None:
    assert find("syncnet") is None
    with pytest.raises(WeightsError) as error:
        require("syncnet")
    for part in (
        "LSE-D",
        "robots.ox.ac.uk",
        "licence",
        "syncdiff-prep weights fetch syncnet",
        str(here / "weights"),
    ):
        assert part in str(error.value)
    assert {line.state for line in status()} == {"missing"}
    with pytest.raises(WeightsError, match="no weights named 'syncnot'; there are syncnet"):
        find("syncnot")


def test_a_file_that_differs_is_refused_unless_allowed(here: Path) -> None:
    path = here / "weights/syncnet_v2.model"
    path.write_bytes(b"not it")
    with pytest.raises(WeightsError, match="is not the published"):
        find("syncnet")
    with pytest.raises(WeightsError, match="is not the published"):
        fetch(published.entry_named("syncnet"))  # and is not overwritten
    assert path.read_bytes() == b"not it"
    allowed = find("syncnet", allow_unverified=True)
    assert allowed is not None and not allowed.verified
    assert [line.state for line in status(["syncnet"])] == ["present"]
    assert [line.state for line in status(["syncnet"], check=True)] == ["differs"]


def test_a_good_copy_in_the_cache_makes_up_for_a_bad_one(
    server: Server, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(entry(server), in_torch_hub=True)
    monkeypatch.setattr(published, "registry", lambda: (one,))
    (here / "weights/w.pth").write_bytes(b"not it")
    good = here / "torch/hub/checkpoints/w.pth"
    good.parent.mkdir(parents=True)
    good.write_bytes(CONTENT)
    found = find("w")
    assert found is not None and found.path == good and found.verified
    assert status(check=True)[0].path == good


def test_unknown_hash_is_never_verified(here: Path) -> None:
    path = here / "weights/base_vox_iter5.pt"
    path.write_bytes(b"weights")
    found = find("avhubert-base")
    assert found is not None and not found.verified
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert verify(path, found.entry) == found


def test_default_folder_is_the_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNCDIFF_WEIGHTS")
    assert published.weights_folder() == here / "cache/syncdiff/weights"
