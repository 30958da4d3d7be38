"""Catalogs of labels and images, items and item collections."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import shapely

from rastervision.core.utils import get_linked_image_item, is_label_item, parse_stac, read_stac, setup_stac_io
from rastervision.core.utils.stac import read_item, read_item_collection
from rastervision.pipeline.errors import ConfigError, NotReadableError

pystac = pytest.importorskip("pystac")

LABEL_EXTENSION = "https://stac-extensions.github.io/label/v1.0.1/schema.json"


def make_item(name: str, bbox: list[float], **properties: Any) -> Any:
    geometry = shapely.geometry.mapping(shapely.box(*bbox))
    return pystac.Item(name, geometry, bbox, datetime(2020, 1, 1, tzinfo=UTC), properties)


def make_label_item(name: str, bbox: list[float], image: Any | None = None, **link: Any) -> Any:
    item = make_item(name, bbox, **{"label:description": "", "label:type": "vector", "label:properties": None})
    item.stac_extensions.append(LABEL_EXTENSION)
    item.add_asset("labels", pystac.Asset("labels.geojson", media_type=pystac.MediaType.GEOJSON, roles=["labels"]))
    if image is not None:
        item.add_link(pystac.Link("source", image, media_type="application/json", extra_fields=link))
    return item


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Two label items with an image, one label item without, in a catalog within a catalog."""
    image = make_item("image", [0, 0, 1, 1])
    image.add_asset("visual", pystac.Asset("visual.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    image.add_asset("nir", pystac.Asset("nir.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    image.add_asset("thumb", pystac.Asset("thumb.png", media_type=pystac.MediaType.PNG, roles=["thumbnail"]))
    near = make_label_item("near", [0, 0, 0.5, 0.5], image)
    far = make_label_item("far", [5, 5, 6, 6], image, **{"label:assets": ["nir"]})
    root, child = pystac.Catalog("root", "all"), pystac.Catalog("child", "part")
    root.add_child(child)
    child.add_items([image, near, far, make_label_item("lonely", [0, 0, 1, 1])])
    root.normalize_hrefs(str(tmp_path / "catalog"))
    root.save(pystac.CatalogType.SELF_CONTAINED)
    return tmp_path / "catalog" / "catalog.json"


def test_labels_are_found_with_their_images(catalog: Path) -> None:
    near, far, lonely = parse_stac(str(catalog))

    folder = catalog.parent / "child"
    assert near["label_uri"] == str(folder / "near" / "labels.geojson")
    assert near["image_uris"] == [str(folder / "image" / name) for name in ("visual.tif", "nir.tif")]
    assert near["label_bbox"].equals(shapely.box(0, 0, 0.5, 0.5))
    assert near["image_bbox"].equals(shapely.box(0, 0, 1, 1))
    assert near["bboxes_intersect"] is True
    assert shapely.geometry.shape(near["aoi_geometry"]).equals(shapely.box(0, 0, 0.5, 0.5))
    assert far["image_uris"] == [str(folder / "image" / "nir.tif")]
    assert far["bboxes_intersect"] is False
    assert (lonely["image_uris"], lonely["image_bbox"], lonely["bboxes_intersect"]) == ([], None, False)
    assert len(parse_stac(str(catalog), item_limit=2)) == 2


def test_a_catalog_is_read_from_a_zip_file(catalog: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog.zip"
    with zipfile.ZipFile(path, "w") as zf:
        for file in catalog.parent.rglob("*.json"):
            zf.write(file, file.relative_to(catalog.parent))

    unpacked = read_stac(str(path), str(tmp_path / "out"), item_limit=1)

    assert unpacked[0]["label_uri"] == str(tmp_path / "out" / "child" / "near" / "labels.geojson")
    assert len(read_stac(str(path))) == len(read_stac(str(catalog))) == 3


@pytest.mark.parametrize("names", [[], ["a/catalog.json", "b/catalog.json"]])
def test_a_zip_file_holds_one_catalog(tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as zf:
        for name in [*names, "other.json"]:
            zf.writestr(name, "{}")

    with pytest.raises(NotReadableError, match=rf"c\.zip holds {len(names) or 'no'} files catalog\.json"):
        read_stac(str(tmp_path / "c.zip"))


def test_bboxes_over_the_antimeridian_have_two_parts(tmp_path: Path) -> None:
    image, labels = make_item("image", [0, 0, 1, 1]), make_label_item("labels", [0, 0, 1, 1])
    image.bbox, labels.bbox = [179, -18, -179, -16], [-179.5, -17.5, -179.2, -17]
    labels.add_link(pystac.Link("source", image))
    catalog = pystac.Catalog("root", "all")
    catalog.add_items([image, labels])
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)

    (found,) = parse_stac(str(tmp_path / "catalog.json"))

    assert found["image_bbox"].area == pytest.approx(4)
    assert found["bboxes_intersect"]


def test_label_items_are_told_apart_without_a_network() -> None:
    image = make_item("image", [0, 0, 1, 1])
    labels = make_label_item("labels", [0, 0, 1, 1], image)

    assert (is_label_item(image), is_label_item(labels)) == (False, True)
    assert get_linked_image_item(labels) is image
    assert get_linked_image_item(make_label_item("lonely", [0, 0, 1, 1])) is None
    labels.add_link(pystac.Link("source", image))
    with pytest.raises(ConfigError, match="labels is linked to 2 images"):
        get_linked_image_item(labels)


def test_relative_assets_are_beside_the_file(tmp_path: Path) -> None:
    item = make_item("a", [0, 0, 1, 1])
    item.add_asset("image", pystac.Asset("images/a.tif"))
    (tmp_path / "a.json").write_text(json.dumps(item.to_dict(include_self_link=False)))
    collection = {"type": "FeatureCollection", "features": [item.to_dict(include_self_link=False)]}
    (tmp_path / "items.json").write_text(json.dumps(collection))

    expected = str(tmp_path / "images" / "a.tif")
    assert read_item(str(tmp_path / "a.json")).assets["image"].get_absolute_href() == expected
    assert read_item_collection(str(tmp_path / "items.json"))[0].assets["image"].href == expected


def test_all_pages_of_a_search_are_read() -> None:
    pages = {
        "/search": {"features": ["a", "b"], "links": [{"rel": "next", "href": "/search?page=2"}]},
        "/search?page=2": {"features": ["c"], "links": []},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page: dict[str, Any] = {"type": "FeatureCollection", **pages[self.path]}
            page["features"] = [make_item(name, [0, 0, 1, 1]).to_dict() for name in page["features"]]
            body = json.dumps(page).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        items = read_item_collection(f"http://127.0.0.1:{server.server_port}/search")
    finally:
        server.shutdown()
        server.server_close()

    assert [item.id for item in items] == ["a", "b", "c"]


def test_what_is_no_stac_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "Feature"}')
    (tmp_path / "b.json").write_text("not json")

    with pytest.raises(NotReadableError, match=r"a\.json is not a STAC catalog"):
        parse_stac(str(tmp_path / "a.json"))
    with pytest.raises(NotReadableError, match=r"a\.json is not a STAC item collection .its type is 'Feature'"):
        read_item_collection(str(tmp_path / "a.json"))
    for read in (read_item, read_item_collection, parse_stac):
        with pytest.raises(NotReadableError, match=r"b\.json"):
            read(str(tmp_path / "b.json"))
        with pytest.raises(NotReadableError, match=r"c\.json"):
            read(str(tmp_path / "c.json"))


def test_pystac_reads_by_the_file_systems(tmp_path: Path) -> None:
    before = pystac.StacIO._default_io
    item = make_item("a", [0, 0, 1, 1])
    try:
        setup_stac_io()
        item.save_object(dest_href=f"file://{tmp_path}/a.json", include_self_link=False)
        assert pystac.Item.from_file(f"file://{tmp_path}/a.json").id == "a"
    finally:
        pystac.StacIO._default_io = before
