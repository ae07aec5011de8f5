"""Downloads from a server in this process: resumed, checked, unpacked with distrust; `earmark data` from end to end."""

import contextlib
import errno
import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import zipfile

import pytest
import requests
from typer.testing import CliRunner

from earmark.cli import app
from earmark.data import cards, get
from earmark.data.errors import DataError
from earmark.data.schema import Card, Download, Source
from earmark.tests import trees


class Server:
    """Files by HTTP, with ranges; `breaks` is after how many bytes of a file the connection drops, once."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks: dict[str, int] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.encodings: set[str | None] = set()
        self.ranges = True


def handler(server: Server) -> type:
    """What answers requests for a server's files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, self.headers.get("Range")))
            server.encodings.add(self.headers.get("Accept-Encoding"))
            content = server.files.get(self.path)
            if content is None:
                return self.send_error(404)
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            start = start if server.ranges else 0
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + server.breaks.pop(self.path, len(content))])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch):
    found = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(found)) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        found.address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(get, "ZENODO", f"{found.address}/api/records/{{record}}")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield found
        running.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_files_are_asked_for_as_they_are(server, tmp_path):
    """Of a compressed answer the length and the ranges are another file's: one gone on with would be damaged."""
    server.files["/a.csv"] = b"path,label\n" * 9
    get.fetch(Download(url=f"{server.address}/a.csv"), tmp_path)
    assert server.encodings == {"identity"}


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    content = bytes(range(256)) * 4000
    server.files["/a.bin"], server.breaks["/a.bin"] = content, 300_000
    download = Download(url=f"{server.address}/a.bin", checksum=sha256(content))
    with pytest.raises(DataError, match=r"a.bin: .*run the command again to go on"):
        get.fetch(download, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    here = (tmp_path / "a.bin.part").stat().st_size
    assert 300_000 - get.CHUNK < here <= 300_000
    told = []
    assert get.fetch(download, tmp_path, lambda *seen: told.append(seen)).read_bytes() == content
    assert server.asked == [("/a.bin", None), ("/a.bin", f"bytes={here}-")]
    assert told[-1] == ("a.bin", len(content), len(content))
    get.fetch(download, tmp_path)
    assert len(server.asked) == 2, "what is here and whole is not got again"


def test_a_server_without_ranges_is_begun_anew(server, tmp_path):
    server.files["/a.bin"], server.ranges = b"right" * 100, False
    (tmp_path / "a.bin.part").write_bytes(b"wrong")
    path = get.fetch(Download(url=f"{server.address}/a.bin", checksum=sha256(b"right" * 100)), tmp_path)
    assert path.read_bytes() == b"right" * 100


def test_another_checksum_is_refused_and_nothing_is_kept(server, tmp_path):
    server.files["/a.bin"] = b"tampered"
    with pytest.raises(DataError, match=r"a.bin: .*hash"):
        get.fetch(Download(url=f"{server.address}/a.bin", checksum=sha256(b"published")), tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_is_not_there_is_an_error(server, tmp_path):
    with pytest.raises(DataError, match=r"none.bin: 404"):
        get.fetch(Download(url=f"{server.address}/none.bin"), tmp_path)


def packed(members: dict[str, bytes], kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in members.items():
                trees._add(archive, name, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["../evil.wav", "a/../../evil.wav", "/evil.wav", "C:\\evil.wav", "..\\evil.wav"])
def test_an_archive_that_reaches_outside_is_refused_whole(tmp_path, kind, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a.{kind}").write_bytes(packed({"good.wav": b"x", name: b"x"}, kind))
    with pytest.raises(DataError, match="would lie outside the folder"):
        get.unpack(folder / f"a.{kind}", folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [f"a.{kind}", "in"]


@pytest.mark.parametrize("kind", ["symlink", "link", "device", "zip"])
def test_an_archive_with_links_or_devices_is_refused_whole(tmp_path, kind):
    path = tmp_path / ("a.zip" if kind == "zip" else "a.tar")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            member = zipfile.ZipInfo("link")
            member.external_attr = 0o120777 << 16
            archive.writestr(member, "/etc/passwd")
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("link")
            member.type = {"symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}[kind]
            member.linkname = "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(DataError, match="link is a link or a device"):
        get.unpack(path, tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_broken_archive_is_an_error(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(packed({"a.wav": b"x" * 5000}, "tar.gz")[:60])
    with pytest.raises(DataError, match=r"a.tar.gz: cannot be unpacked .*delete it and get it again"):
        get.unpack(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_an_archive_with_damaged_bytes_is_an_error(tmp_path, kind):
    """Each library has an error of its own for that."""
    path, noise = tmp_path / f"a.{kind}", random.Random(0).randbytes(100_000)
    if kind == "zip":
        path.write_bytes(packed({"a.wav": noise}, kind))
    else:
        with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
            trees._add(archive, "a.wav", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a.{kind}: cannot be unpacked .*delete it and get it again"):
        get.unpack(path, tmp_path)


def test_a_full_disk_is_not_the_archive_s_fault(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.zip").write_bytes(packed({"a.wav": b"x"}, "zip"))
    monkeypatch.setattr(get, "_unpack_zip", full)
    with pytest.raises(OSError, match="No space left"):
        get.unpack(tmp_path / "a.zip", tmp_path)


def test_archives_in_archives_are_unpacked_too(server, home):
    """As AISHELL-1 has them: an archive a speaker."""
    inner = packed({"train/S0002/a.wav": trees.wav_bytes()}, "tar.gz")
    server.files["/corpus.tgz"] = packed({"corpus/wav/S0002.tar.gz": inner}, "tar.gz")
    card = Card(
        name="mine", title="", version=1, domain="speech", uses=(), licence="",
        source=Source(urls=(Download(url=f"{server.address}/corpus.tgz"),)), layouts=({"reader": "folders"},),
    )  # fmt: skip
    root = get.get(card)
    assert (root / "corpus" / "wav" / "train" / "S0002" / "a.wav").is_file()


@pytest.fixture
def record(server, tmp_path):
    """The record of ESC-50 on Zenodo in miniature: two of its five archives."""
    card = cards.cards()["esc50"]
    trees.build(tmp_path / "tree", card, card.layouts[0])
    files = []
    for path in sorted((tmp_path / "tree").rglob("*.tar")):
        content = path.read_bytes()
        server.files[f"/files/{path.name}/content"] = content
        link = f"{server.address}/files/{path.name}/content"
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        files.append({"key": path.name, "checksum": checksum, "links": {"self": link}})
    server.files["/api/records/14614287"] = json.dumps({"files": files}).encode()
    return server


def run(*arguments: str):
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, ["data", *arguments])


def test_a_dataset_is_ready_by_one_command(record, home, monkeypatch):
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    before = run("ls", "--all")
    assert "earmark data get esc50" in before.stdout
    assert "ask: https://github.com/MTG/mtg-jamendo-dataset" in before.stdout
    assert "esc50" not in run("ls").stdout
    done = run("get", "esc50")
    assert done.exit_code == 0, done.output
    assert "15 clips" in done.output
    assert [card.name for card in cards.select([])] == ["esc50"], "the default is what is here"
    (card,) = cards.select(["esc50"])
    assert {clip.fields["fold"] for clip in cards.load(card).clips} == {"1", "2", "3", "4", "5"}
    assert "15 clips; the card says 2000" in run("check", "esc50").output
    assert "esc50" in run("ls").stdout
    asked = len(record.asked)
    assert run("get", "esc50").exit_code == 0
    assert len(record.asked) == asked + 1, "again only the record is looked at"


def test_a_record_whose_file_changed_is_refused(record, home):
    name = next(name for name in record.files if name.endswith("content"))
    record.files[name] += b"x"
    done = run("get", "esc50")
    assert done.exit_code == 1
    assert "hash" in done.output


def test_a_record_that_cannot_be_read_is_an_error(server, home):
    done = run("get", "esc50")
    assert done.exit_code == 1
    assert "the record cannot be read" in done.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mtg_jamendo",
            "its owners give it at https://github.com/MTG/mtg-jamendo-dataset; then run: earmark data index",
        ),
        ("esc5", "unknown dataset 'esc5'; did you mean esc50"),
        ("fsdd", "fsdd comes in a folder with a manifest.csv, not by a download; set EARMARK_DATA to that folder"),
        ("sampler_speech", "sampler_speech is part of the package: there is nothing to get or to index"),
    ],
)
def test_what_cannot_be_got_says_what_to_do(home, monkeypatch, name, message):
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    done = run("get", name)
    assert done.exit_code == 1
    assert message in done.output.replace("\n", " ")


def test_a_card_that_lists_a_manifest_is_neither_got_nor_indexed(home, tmp_path):
    """And not told to run the very command that was run."""
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, title: x, version: 1, domain: speech, source: {manifest: mine.csv}, uses: [], licence: x}"
    )
    for order in (["get"], ["index", "--root", str(tmp_path)]):
        done = run(order[0], str(tmp_path / "mine.yaml"), *order[1:])
        assert done.exit_code == 1
        assert "mine is what mine.csv lists: there is nothing to get or to index" in done.output
    done = run("check", str(tmp_path / "mine.yaml"))
    assert done.exit_code == 1
    assert "mine.csv: cannot be read (No such file or directory)" in done.output


def test_a_manifest_that_is_damaged_says_what_to_do(home):
    path = cards.manifest_of(cards.cards()["esc50"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    done = run("check", "esc50")
    assert done.exit_code == 1
    assert "delete it and build it again" in done.output


def test_nobody_can_have_what_is_unavailable(home):
    source = Source(unavailable="its authors never released it")
    card = Card(name="gone", title="", version=1, domain="speech", uses=(), licence="", source=source)
    with pytest.raises(DataError, match="gone cannot be had: its authors never released it"):
        get.get(card)
    assert "cannot be had" in cards.lacking(card)


def test_a_hub_repository_is_got_at_its_revision(home, monkeypatch):
    """By huggingface_hub, which resumes and checks by itself; here it is asked and writes what the hub would."""
    import huggingface_hub

    card = cards.cards()["collected_scenes"]
    asked = []

    def snapshot(repo: str, **options: object) -> None:
        asked.append((repo, options["repo_type"], options["revision"]))
        trees.build(options["local_dir"], card, card.layouts[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert run("get", "collected_scenes").exit_code == 0
    assert asked == [("RayYuki/CodecBench_collected_data", "dataset", None)]
    assert len(cards.load(card).clips) == 3


def test_index_takes_what_is_there(home, tmp_path):
    card = cards.cards()["cat_dog"]
    trees.build(tmp_path / "mine", card, card.layouts[0])
    done = run("index", "cat_dog", "--root", str(tmp_path / "mine"))
    assert done.exit_code == 0, done.output
    assert "6 clips" in done.output
    assert run("index", "cat_dog", "--root", str(tmp_path / "none")).exit_code == 1


def test_the_server_of_these_tests_drops_connections(server):
    server.files["/a"], server.breaks["/a"] = b"x" * 100, 10
    with contextlib.suppress(requests.RequestException):
        assert len(requests.get(f"{server.address}/a", timeout=60).content) <= 10
    assert requests.get(f"{server.address}/a", timeout=60).content == b"x" * 100


def test_every_download_of_a_card_has_its_checksum_but_one():
    """OpenSLR prints none for speechocean762: what comes is kept as it is, and its own checksum written down."""
    bare = {card.name for card in cards.cards().values() for one in card.source.urls if not one.checksum}
    assert bare == {"speechocean762"}
