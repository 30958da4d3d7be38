"""Keys that are no common paths, listings of many, and what is copied again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rastervision.aws_s3 import S3FileSystem, get_matching_s3_keys
from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system import FileInfo
from rastervision.testing.fault_proxy import FaultProxy
from rastervision.testing.s3_server import use_s3


def put(uri: str, *keys: str, body: bytes = b"x") -> None:
    """Write objects with keys that no file could have."""
    bucket, _ = S3FileSystem.parse_uri(uri)
    client = S3FileSystem.get_client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=body), keys))


def keys_of(uri: str) -> set[str]:
    bucket, _ = S3FileSystem.parse_uri(uri)
    return set(get_matching_s3_keys(bucket, delimiter=""))


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket/a/b.txt", ("bucket", "a/b.txt")),
        ("S3://bucket/a", ("bucket", "a")),
        ("s3://bucket//a//b", ("bucket", "/a//b")),
        ("s3://bucket/a?b=c#d%20e.txt", ("bucket", "a?b=c#d%20e.txt")),
        ("s3://bucket", ("bucket", "")),
    ],
)
def test_uris_are_bucket_and_key(uri: str, parts: tuple[str, str]) -> None:
    assert S3FileSystem.parse_uri(uri) == parts


def test_local_paths_stay_in_the_folder_and_differ(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert S3FileSystem.local_path("s3://bucket/a/b.txt", root) == f"{root}/s3/bucket/a/b.txt"
    assert S3FileSystem.local_path("s3://bucket/a/", root) == f"{root}/s3/bucket/a"

    uris = [f"s3://bucket/{key}" for key in ("a/b", "a//b", "/a/b", "a/../b", "b", "../b", "a/./b")]
    paths = {os.path.normpath(S3FileSystem.local_path(uri, root)) for uri in uris}
    assert len(paths) == len(uris)
    assert all(path.startswith(f"{root}/s3/bucket/") for path in paths)


def test_markers_of_folders_are_no_files(s3: str, tmp_path: Path) -> None:
    put(s3, "folder/", "folder/empty/", "folder/a.txt", "folder/full/", "folder/full/b.txt")

    assert S3FileSystem.list_paths(f"{s3}/folder") == [f"{s3}/folder/{n}" for n in ("a.txt", "empty/", "full/")]
    assert S3FileSystem.file_info(f"{s3}/folder/empty") == FileInfo(is_dir=True)
    assert S3FileSystem.file_exists(f"{s3}/folder/empty/")
    assert not S3FileSystem.file_exists(f"{s3}/folder/empty", include_dir=False)
    S3FileSystem.sync_from_dir(f"{s3}/folder", str(tmp_path / "a"))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.txt")) == ["a/a.txt", "a/full/b.txt"]

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.txt").write_bytes(b"x")
    S3FileSystem.sync_to_dir(str(tmp_path / "b"), f"{s3}/folder")
    assert "folder/empty/" in keys_of(s3)
    S3FileSystem.sync_to_dir(str(tmp_path / "b"), f"{s3}/folder/", delete=True)
    assert keys_of(s3) == {"folder/", "folder/a.txt"}


@pytest.mark.parametrize("key", ["folder/../../out.txt", "folder/a//b.txt", "folder/./a.txt"])
def test_keys_that_lead_elsewhere_are_refused_before_anything_is_copied(s3: str, tmp_path: Path, key: str) -> None:
    put(s3, "folder/a.txt", key)

    with pytest.raises(NotReadableError, match=r"Cannot copy s3://.*\.txt with its folder: the key cannot be the path"):
        S3FileSystem.sync_from_dir(f"{s3}/folder", str(tmp_path / "deep" / "here"), delete=True)

    assert list(tmp_path.iterdir()) == []
    assert S3FileSystem.read_bytes(f"{s3}/{key}") == b"x"


def test_a_file_and_a_folder_of_one_name_cannot_both_be_here(s3: str, tmp_path: Path) -> None:
    put(s3, "folder/a", "folder/a/b")

    assert S3FileSystem.file_info(f"{s3}/folder/a") != FileInfo(is_dir=True)
    with pytest.raises(NotWritableError, match=rf"Cannot sync {s3}/folder to .*: "):
        S3FileSystem.sync_from_dir(f"{s3}/folder", str(tmp_path / "here"))


def test_syncing_from_nothing_deletes_nothing(s3: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")

    with pytest.raises(NotReadableError, match=rf"Cannot sync from {s3}/nothing: there is nothing"):
        S3FileSystem.sync_from_dir(f"{s3}/nothing", str(tmp_path), delete=True)

    assert (tmp_path / "a.txt").exists()


def test_a_sync_with_the_whole_bucket(s3: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("b")
    S3FileSystem.sync_to_dir(str(tmp_path), s3)

    assert keys_of(s3) == {"a/b.txt"}
    assert S3FileSystem.list_paths(s3) == S3FileSystem.list_paths(f"{s3}/") == [f"{s3}/a/"]
    assert S3FileSystem.file_info(s3) == FileInfo(is_dir=True)
    assert S3FileSystem.folder_info(s3) is not None


def test_only_what_differs_is_copied(faulty_s3: str, proxy: FaultProxy, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    for name, size in (("a.txt", 10), ("b.txt", 0), ("big.bin", 20_000_000)):
        (source / name).write_bytes(os.urandom(size))
    S3FileSystem.sync_to_dir(str(source), f"{faulty_s3}/synced")
    S3FileSystem.sync_from_dir(f"{faulty_s3}/synced", str(back))
    proxy.clear()

    # other dates say nothing where the checksum says that the content is the same
    os.utime(source / "a.txt")
    os.utime(back / "big.bin")
    S3FileSystem.sync_to_dir(str(source), f"{faulty_s3}/synced")
    S3FileSystem.sync_from_dir(f"{faulty_s3}/synced", str(back))
    assert {r.method for r in proxy.requests} == {"GET"}
    assert len(proxy.requests) == 2  # the listings

    # nor does an old date, if the content differs
    (source / "a.txt").write_bytes(b"0123456789")
    os.utime(source / "a.txt", (1e9, 1e9))
    S3FileSystem.sync_to_dir(str(source), f"{faulty_s3}/synced")
    assert proxy.count("PUT") == 1
    assert proxy.count("PUT", "/synced/a.txt") == 1


def test_objects_in_parts_of_other_sizes_are_the_same_too(faulty_s3: str, proxy: FaultProxy, tmp_path: Path) -> None:
    from boto3.s3.transfer import TransferConfig

    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(11_000_000))
    bucket, _ = S3FileSystem.parse_uri(faulty_s3)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    S3FileSystem.get_client().upload_file(str(path), bucket, "big.bin", Config=config)
    proxy.clear()

    S3FileSystem.sync_to_dir(str(tmp_path), faulty_s3)
    S3FileSystem.copy_from(f"{faulty_s3}/big.bin", str(tmp_path / "copy.bin"))

    assert proxy.count("PUT") == 0
    assert (tmp_path / "copy.bin").read_bytes() == path.read_bytes()


@pytest.fixture
def own_s3(
    fast_retries: None, monkeypatch: pytest.MonkeyPatch, make_bucket: Callable[[], str]
) -> Iterator[tuple[str, FaultProxy]]:
    """A bucket on a server in this process, where `make_objects` makes objects without requests; and the proxy."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with FaultProxy("http://{}:{}".format(*server.get_host_and_port())) as proxy:
        use_s3(monkeypatch, proxy.url)
        yield make_bucket(), proxy
    server.stop()


def make_objects(uri: str, num: int) -> list[str]:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    bucket, key = S3FileSystem.parse_uri(uri)
    for i in range(num):
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"{key}/{i:05}.txt", b"x")
    return [f"{uri}/{i:05}.txt" for i in range(num)]


def test_ten_thousand_keys(own_s3: tuple[str, FaultProxy]) -> None:
    bucket, proxy = own_s3
    uris = make_objects(f"{bucket}/many", 10_050)
    make_objects(f"{bucket}/many-more", 1)
    proxy.clear()

    # moto takes about a second for each of the eleven pages
    assert S3FileSystem.list_paths(f"{bucket}/many", ext=".txt") == uris
    assert proxy.count("GET") == 11


def test_many_files_are_told_by_a_listing(own_s3: tuple[str, FaultProxy]) -> None:
    bucket, proxy = own_s3
    uri = f"{bucket}/many"
    uris = make_objects(uri, 1_500)
    make_objects(f"{uri}/deep", 1)
    proxy.clear()

    found = S3FileSystem.files_info([*uris, f"{uri}/none.txt", f"{uri}/deep"])
    assert [r.method for r in proxy.requests] == ["GET", "GET"]
    assert found.pop(f"{uri}/none.txt") is None
    assert found.pop(f"{uri}/deep") == FileInfo(is_dir=True)
    assert found == dict.fromkeys(uris, S3FileSystem.file_info(uris[0]))


def test_a_few_files_of_a_large_folder_are_not_worth_its_listing(
    own_s3: tuple[str, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, proxy = own_s3
    uris = make_objects(f"{bucket}/many", 1_500)
    few = [uris[0], *uris[1200:1208], f"{bucket}/many/none.txt"]
    monkeypatch.setattr("rastervision.aws_s3.many._FILES_PER_PAGE", 100)
    proxy.clear()

    found = S3FileSystem.files_info(few)

    assert found == {uri: S3FileSystem.file_info(uri) for uri in few}
    assert proxy.count("HEAD") == 9 + len(few)  # the first was on the first page


def test_a_sync_deletes_more_than_one_request_can(own_s3: tuple[str, FaultProxy], tmp_path: Path) -> None:
    bucket, proxy = own_s3
    make_objects(f"{bucket}/many", 1_100)
    (tmp_path / "stays.txt").write_text("x")

    S3FileSystem.sync_to_dir(str(tmp_path), f"{bucket}/many", delete=True)

    assert keys_of(bucket) == {"many/stays.txt"}
    assert proxy.count("POST", "?delete") == 2


def test_what_is_lost_while_it_is_synced_is_left_out(s3: str, tmp_path: Path) -> None:
    stop = threading.Event()
    for i in range(200):
        (tmp_path / f"{i}.txt").write_text(str(i))

    def remove() -> None:
        for i in range(200):
            (tmp_path / f"{i}.txt").unlink()
            if stop.wait(0.001):
                return

    thread = threading.Thread(target=remove)
    thread.start()
    S3FileSystem.sync_to_dir(str(tmp_path), f"{s3}/synced")
    stop.set()
    thread.join()


def test_last_modified_and_etag_of_moto(s3: str) -> None:
    put(s3, "a.txt", body=b"hello")

    assert abs(S3FileSystem.last_modified(f"{s3}/a.txt").timestamp() - time.time()) < 60
    assert S3FileSystem.file_info(f"{s3}/a.txt") == FileInfo('"5d41402abc4b2a76b9719d911017c592"')
