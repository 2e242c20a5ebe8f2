"""Volumes: the same box from every format, axes and voxel sizes from metadata, errors that say where, threads."""
import json
import logging
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr

from elektronn2.data.volumes import Address, Volume, convert, extras, open_volume, tensorstore
from elektronn2.data.volumes.volume import Stored

SHAPE = (2, 7, 20, 18)  # f, z, x, y


@pytest.fixture
def raw(rng):
    return rng.integers(0, 2 ** 16, SHAPE, np.uint16)


def write_h5(folder, raw):
    with h5py.File(folder / "em.h5", "w") as f:
        f.create_dataset("volumes/raw", data=raw, chunks=(1, 4, 8, 8), compression="gzip")
    return f"{folder}/em.h5:volumes/raw"


def write_h5_axes(folder, raw):
    with h5py.File(folder / "em.h5", "w") as f:
        f["raw"] = raw.transpose(1, 3, 2, 0)
        f["raw"].attrs.update(axes="zyxf", element_size_um=[0.04, 0.008, 0.009])
    return f"{folder}/em.h5"


def write_ome(folder, raw, version, unit="nanometer", scale=(1, 40, 8, 9), **options):
    group = zarr.create_group(folder / "em.zarr", zarr_format=2 if version == "0.4" else 3)
    axes = [{"name": "c", "type": "channel"}] + [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    scales = [[1, *(2 ** i * s for s in scale[1:])] for i in range(2)]
    levels = [{"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scales[i]}]} for i in range(2)]
    image = {"axes": axes, "datasets": levels, "version": version}
    group.attrs.update({"multiscales": [image]} if version == "0.4" else {"ome": {"version": "0.5", "multiscales": [image]}})
    for i in range(2):
        data = np.ascontiguousarray(raw.swapaxes(2, 3)[:, ::2 ** i, ::2 ** i, ::2 ** i])
        group.create_array(str(i), data=data, chunks=(1, 4, 6, 5), **options)
    return f"{folder}/em.zarr"


def write_zarr_names(folder, raw):
    array = zarr.create_array(folder / "em.zarr/s0", data=raw.transpose(3, 2, 1, 0).copy(), chunks=(6, 5, 4, 1),
                              dimension_names=["y", "x", "z", "c"])
    assert array.metadata.dimension_names == ("y", "x", "z", "c")
    return f"{folder}/em.zarr/s0"


def write_zarr_plain(folder, raw):
    zarr.create_array(folder / "plain/a", data=raw, chunks=(1, 4, 5, 6), zarr_format=2)
    return f"zarr:{folder}/plain/a"


def write_n5(folder, raw):
    data = raw.transpose(2, 3, 1, 0)
    ts.open({"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/em.n5/volumes/raw"}, "metadata": {
        "blockSize": [7, 6, 5, 1], "axes": ["x", "y", "z", "c"], "units": ["nm", "nm", "nm", ""],
        "resolution": [9, 8, 40, 1]}}, create=True, dtype="uint16", shape=data.shape).result()[...] = data
    return f"{folder}/em.n5/volumes/raw"


def write_precomputed(folder, raw):
    data = raw.transpose(2, 3, 1, 0)
    ts.open({"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/em"},
             "multiscale_metadata": {"data_type": "uint16", "num_channels": 2, "type": "image"},
             "scale_metadata": {"resolution": [9, 8, 40], "encoding": "raw", "chunk_size": [7, 6, 5], "size": data.shape[:3],
                                "voxel_offset": [100, 10, 1]}}, create=True).result()[...] = data
    return f"precomputed://file://{folder}/em"


def write_tiff(folder, raw):
    tifffile.imwrite(folder / "em.tif", raw.swapaxes(2, 3), bigtiff=True, tile=(16, 16), compression="zlib",
                     metadata={"axes": "CZYX"})
    return f"{folder}/em.tif"


def write_ome_tiff(folder, raw):
    tifffile.imwrite(folder / "em.ome.tif", raw.swapaxes(2, 3), ome=True, metadata={
        "axes": "CZYX", "PhysicalSizeX": 0.009, "PhysicalSizeY": 0.008, "PhysicalSizeZ": 40, "PhysicalSizeZUnit": "nm"})
    return f"tiff:{folder}/em.ome.tif"


def write_npy(folder, raw):
    np.save(folder / "em.npy", raw)
    return f"{folder}/em.npy"


FORMATS = {
    "h5": (write_h5, None, (1, 4, 8, 8)), "h5 axes": (write_h5_axes, (40, 9, 8), None),
    "OME-Zarr 0.4": (lambda f, raw: write_ome(f, raw, "0.4"), (40, 9, 8), (1, 4, 5, 6)),
    "OME-Zarr 0.5": (lambda f, raw: write_ome(f, raw, "0.5", shards=(2, 8, 12, 10)), (40, 9, 8), (1, 4, 5, 6)),
    "OME-Zarr level": (lambda f, raw: write_ome(f, raw, "0.5", "micrometer", (1, 0.04, 0.008, 0.009)) + "/0", (40, 9, 8),
                       (1, 4, 5, 6)),
    "zarr names": (write_zarr_names, None, (1, 4, 5, 6)), "zarr plain": (write_zarr_plain, None, (1, 4, 5, 6)),
    "n5": (write_n5, (40, 9, 8), (1, 5, 7, 6)), "precomputed": (write_precomputed, (40, 9, 8), (2, 5, 7, 6)),
    "tiff": (write_tiff, None, (1, 1, 16, 16)), "ome tiff": (write_ome_tiff, (40, 9, 8), (1, 1, 20, 18)),
    "npy": (write_npy, None, None)}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(name, raw, tmp_path):
    write, voxel_size, chunks = FORMATS[name]
    volume = open_volume(write(tmp_path, raw))
    assert volume.shape == SHAPE and volume.dtype == np.uint16 and volume.channels == len(volume) == 2
    assert volume.voxel_size == pytest.approx(voxel_size) if voxel_size else volume.voxel_size is None
    assert volume.chunks == chunks
    for index in [np.s_[:, 1:5, 3:17, 2:11], np.s_[1], np.s_[:, 3], np.s_[..., -1], np.s_[0:1, 2:7:2, ::3, 5:5],
                  np.s_[1, 2, 3, 4], np.s_[:, -3:]]:
        got = volume[index]
        assert isinstance(got, np.ndarray | np.uint16) and got.dtype == np.uint16
        np.testing.assert_array_equal(got, raw[index])
    got = volume.read([(0, 1), (2, 3), (0, 20), (4, 6)])
    np.testing.assert_array_equal(got, raw[0:1, 2:3, :, 4:6])
    loaded = volume.load()
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, raw)


def test_stacks_of_files_in_natural_order(raw, tmp_path):
    sections = np.concatenate([raw[0], raw[1]])
    for i, section in enumerate(sections):
        tifffile.imwrite(tmp_path / f"section_{i}.tif", section.T)  # 10 after 9
    for address in (f"tiff:{tmp_path}/*.tif", f"{tmp_path}/section_*.tif", f"tiff:{tmp_path}"):
        volume = open_volume(address)
        assert volume.shape == (1, 14, 20, 18)
        np.testing.assert_array_equal(volume[0, 8:12, 3:9], sections[8:12, 3:9])
    np.testing.assert_array_equal(open_volume(f"tiff:{tmp_path}/*.tif?axes=zxy")[0], sections.swapaxes(1, 2))
    for wrong, message in ((raw[0, 0, :5], r"uint16 \(5, 18\)"), (raw[0, 0], r"uint16 \(20, 18\)"),  # of equally many voxels
                           (raw[0, 0].T.astype(np.int16), r"int16 \(18, 20\)")):
        tifffile.imwrite(tmp_path / "section_5.tif", wrong)
        with pytest.raises(OSError, match=r"box f 0:1, z 4:7, .* cannot be read: section_5.tif has " + message
                           + r", but the first section uint16 \(18, 20\). Is the file"):
            open_volume(f"tiff:{tmp_path}/*.tif")[:, 4:7]
    (tmp_path / "section_5.tif").write_bytes(b"")
    with pytest.raises(OSError, match=r"z 0:14, .* cannot be read: section_5.tif: not a TIFF file"):
        open_volume(f"tiff:{tmp_path}/*.tif")[:]


def test_a_gap_in_a_stack_is_noted(raw, tmp_path, caplog):
    logger = logging.getLogger("elektronn2log")
    for i in range(8):
        tifffile.imwrite(tmp_path / f"s2_{10 * i:04d}.tif", raw[0, 0])
    logger.addHandler(caplog.handler)
    try:
        open_volume(f"{tmp_path}/*.tif")
        assert "NOTE" not in caplog.text
        (tmp_path / "s2_0050.tif").unlink()
        open_volume(f"{tmp_path}/*.tif")
        assert f"NOTE: s2_0060.tif follows s2_0040.tif, unlike the other sections in {tmp_path}." in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def test_scales_of_imagej(raw, tmp_path):
    tifffile.imwrite(tmp_path / "em.tif", raw[0].swapaxes(1, 2), imagej=True, resolution=(1 / 0.009, 1 / 0.008),
                     metadata={"axes": "ZYX", "spacing": 0.04, "unit": "um"})
    volume = open_volume(tmp_path / "em.tif")
    assert volume.shape == (1, 7, 20, 18) and volume.voxel_size == pytest.approx((40, 9, 8), rel=1e-4)


def test_levels(raw, tmp_path):
    address = write_ome(tmp_path, raw, "0.5")
    for text in (f"{address}/1", f"{address}:1", f"zarr://{address}/1"):
        volume = open_volume(text)
        assert volume.voxel_size == pytest.approx((80, 18, 16))
        np.testing.assert_array_equal(volume[:], raw[:, ::2, ::2, ::2])


@pytest.mark.parametrize("axes", ["xyz", "zxy", "zyx", "yxz"])
def test_axes_are_taken_by_name(axes, raw, tmp_path):
    expected = np.moveaxis(raw[0], [axes.index(a) for a in "zxy"], (0, 1, 2))
    np.save(tmp_path / "em.npy", raw[0])
    for volume in (open_volume(raw[0], axes), open_volume(f"{tmp_path}/em.npy?axes={axes}"),
                   open_volume(tmp_path / "em.npy", axes)):
        np.testing.assert_array_equal(volume[0], expected)


def test_arrays_and_images():
    image = np.arange(6).reshape(2, 3)
    assert open_volume(image).shape == (1, 1, 2, 3)
    volume = open_volume(image[None, None], "txcy"[0] + "zxy")
    assert volume.shape == (1, 1, 2, 3) and open_volume(volume) is volume
    assert open_volume(np.zeros((3, 4, 5, 1)), "zyxt").shape == (1, 3, 5, 4)


@pytest.mark.parametrize("array, axes, message", [
    (np.zeros(3), None, r"has shape \(3,\), but volumes have axes"),
    (np.zeros((2, 3, 4)), "zx", "cannot have the axes 'zx'"),
    (np.zeros((2, 3, 4)), "zzx", "cannot have the axes"), (np.zeros((2, 3, 4)), "zyf", "cannot have the axes"),
    (np.zeros((2, 3, 4)), 5, "cannot have the axes 5"),
    (np.zeros((2, 3, 4)), "txy", "only one of {'t': 2} can be taken")])
def test_wrong_axes(array, axes, message):
    with pytest.raises(ValueError, match=message):
        open_volume(array, axes)


def test_wrong_indices(raw):
    volume = open_volume(raw)
    for index, message in ((np.s_[:, ::-1], "axis z cannot be read backwards"), (np.s_[0, 0, 0, 0, 0], "5 indices"),
                           (np.s_[:, 7], "range")):
        with pytest.raises(IndexError, match=message):
            volume[index]
    with pytest.raises(IndexError, match=r"no box f 0:1, z 5:8, x 0:1, y 0:1"):
        volume.read([(0, 1), (5, 8), (0, 1), (0, 1)])


@pytest.mark.parametrize("text, expected", [
    ("raw_0.h5", ("h5", "raw_0.h5", None, None)), ("~/raw_0.h5:volumes/raw", ("h5", "~/raw_0.h5", "volumes/raw", None)),
    ("h5:data.bin:raw", ("h5", "data.bin", "raw", None)), ("a:b.h5", ("h5", "a:b.h5", None, None)),
    ("em.zarr", ("zarr", "em.zarr", None, None)), ("em.zarr/", ("zarr", "em.zarr", None, None)),
    ("https://host:80/a/em.zarr/v/0?axes=zyx", ("zarr", "https://host:80/a/em.zarr", "v/0", "zyx")),
    ("gs://b/em.n5/raw", ("n5", "gs://b/em.n5", "raw", None)), ("zarr:s3://b/em", ("zarr", "s3://b/em", None, None)),
    ("precomputed://gs://b/em", ("precomputed", "gs://b/em", None, None)),
    ("precomputed:~/em:2", ("precomputed", "~/em", "2", None)), ("file:///a/em.zarr", ("zarr", "/a/em.zarr", None, None)),
    ("tiff:~/s/*.tif", ("tiff", "~/s/*.tif", None, None)), ("~/s/s_??.TIFF", ("tiff", "~/s/s_??.TIFF", None, None)),
    ("knossos://data:2", ("knossos", "data", "2", None)),
    ("em_mag1/knossos.conf", ("knossos", "em_mag1/knossos.conf", None, None))])
def test_addresses(text, expected):
    assert tuple(Address.parse(text)) == expected


def test_addresses_in_folders(tmp_path):
    assert Address.parse("em.zarr/0", tmp_path).path == f"{tmp_path}/em.zarr"
    assert Address.parse("s3://b/em.zarr/0", tmp_path).path == "s3://b/em.zarr"
    assert Address.parse("/a/b.npy", tmp_path).path == "/a/b.npy"
    with pytest.raises(ValueError, match="what format is this.*precomputed://gs://b/em"):
        Address.parse("gs://b/em")
    with pytest.raises(ValueError, match="folder without a volume of a known kind"):
        Address.parse(str(tmp_path))
    with pytest.raises(ValueError, match="names no file"):
        Address.parse("")


def test_folders_are_known_by_what_is_in_them(raw, tmp_path):
    write_zarr_plain(tmp_path, raw)
    write_precomputed(tmp_path, raw)
    for name in ("plain/a", "em"):
        np.testing.assert_array_equal(open_volume(tmp_path / name)[:, 2:4], raw[:, 2:4])


# -- errors ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, key, error, message", [
    ("h5", ":raw", KeyError, r"em.h5 has no data set 'raw'; available: \['volumes/raw'\]"),
    ("h5", ":volumes", KeyError, "it is a group"),
    ("OME-Zarr 0.5", "/7", KeyError, r"no array '7'; available: \['0', '1'\]"),
    ("OME-Zarr 0.4", "/a/b", KeyError, r"no array 'a/b'; available: \['0', '1'\]"),
    ("n5", "/rew", KeyError, r"em.n5 has no data set 'rew'; available: \['volumes/raw'\]"),
    ("n5", "", KeyError, r"em.n5 has no single data set; available: \['volumes/raw'\]"),
    ("precomputed", ":3", OSError, "em cannot be read as precomputed"),
    ("precomputed", ":a", KeyError, "no number of a scale"), ("npy", ":a", KeyError, "holds one array and no data set 'a'"),
    ("tiff", ":a", KeyError, "no data sets by name")])
def test_wrong_keys(name, key, error, message, raw, tmp_path):
    address = FORMATS[name][0](tmp_path, raw)
    address = address.removesuffix(":volumes/raw").removesuffix("/volumes/raw")
    with pytest.raises(error, match=message):
        open_volume(address + key)


@pytest.mark.parametrize("name", ["a.h5", "a.zarr/0", "a.n5/raw", "precomputed:a", "*.tif", "a.tif", "a.npy", "knossos:a"])
def test_missing_files(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*" + str(tmp_path)):
        open_volume(Address.parse(name, tmp_path))


@pytest.mark.parametrize("name", ["a.h5", "a.tif", "a.npy"])
def test_files_of_another_kind(name, tmp_path):
    (tmp_path / name).write_text("nonsense")
    with pytest.raises(OSError, match=f"{name}.* cannot be read as"):
        open_volume(tmp_path / name)


def test_the_nearest_name_is_told(raw, tmp_path):
    write_h5(tmp_path, raw)
    (tmp_path / "em.h5").rename(tmp_path / "cortex.h5")
    for name in ("cortx.h5:volumes/raw", "cortx.h5"):
        with pytest.raises(FileNotFoundError, match="There is no file .*cortx.h5. Did you mean 'cortex.h5'"):
            open_volume(tmp_path / name)


@pytest.mark.parametrize("source", [3, None, ("em.h5",), ("em.h5", 1), [1, "raw"], {"em.h5": "raw"}], ids=str)
def test_what_is_no_address(source):
    with pytest.raises(TypeError, match="A volume is named by a string, a pair .file, name of the data set."):
        open_volume(source)


def test_several_data_sets_must_be_named(raw, tmp_path):
    write_h5(tmp_path, raw)
    with h5py.File(tmp_path / "em.h5", "a") as f:
        f["other"] = raw
    with pytest.raises(ValueError, match=r"has the data sets \['other', 'volumes/raw'\]: name one, as in .*em.h5:other"):
        open_volume(tmp_path / "em.h5")


def test_damaged_metadata(raw, tmp_path):
    write_ome(tmp_path, raw, "0.5")
    for text in ("{", json.dumps({"zarr_format": 3, "node_type": "array"})):
        (tmp_path / "em.zarr/0/zarr.json").write_text(text)
        for name in ("em.zarr", "em.zarr/0"):
            with pytest.raises(OSError, match=rf"{name} cannot be read as Zarr"):
                open_volume(tmp_path / name)


@pytest.mark.parametrize("name, chunk", [("h5", None), ("OME-Zarr 0.5", "em.zarr/0/c/0/0/0/0"),
                                         ("OME-Zarr 0.4", "em.zarr/0/0.0.0.0"),
                                         ("n5", "em.n5/volumes/raw/0/0/0/0"), ("precomputed", "em/9_8_40/100-107_10-16_1-6"),
                                         ("tiff", None)])
def test_damaged_chunks(name, chunk, raw, tmp_path):
    address = FORMATS[name][0](tmp_path, raw)
    if chunk is None:
        file = tmp_path / ("em.h5" if name == "h5" else "em.tif")
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle:middle + 2000] = bytes(2000)
        file.write_bytes(data)
    else:
        file = tmp_path / chunk
        data = bytearray(file.read_bytes())
        data = data[:40] if name == "precomputed" else data[:-20] + bytes(20) if "0.5" in name else bytes(200) + data[200:]
        file.write_bytes(data)
    volume = open_volume(address)
    with pytest.raises(OSError, match=r"em\.\w+.* the box f 0:2, z 0:7, x 0:20, y 0:18 cannot be read: |"
                                      r"em: the box f 0:2, z 0:7, x 0:20, y 0:18 cannot be read: "):
        volume[:]


def test_a_shard_without_bytes_is_damaged(raw, tmp_path):
    """As a full disk leaves it; a shard that is not there at all is zero."""
    convert(raw[0], tmp_path / "em.zarr", chunks=4)
    (tmp_path / "em.zarr/0/c/0/0/0").write_bytes(b"")
    for box in (slice(None), slice(0, 2)):
        with pytest.raises(OSError, match="em.zarr: the box f 0:1, z 0:.* cannot be read: .*c/0/0/0 has no bytes"):
            open_volume(tmp_path / "em.zarr")[:, box]
    (tmp_path / "em.zarr/0/c/0/0/0").unlink()
    assert not open_volume(tmp_path / "em.zarr")[:].any()


def test_the_error_is_the_last_that_is_said(raw, tmp_path):
    """Python tells of all reading that was under way when the process ends."""
    convert(np.tile(raw[0], (10, 10, 10)), tmp_path / "em.zarr", chunks=8, shards=64)
    chunk = tmp_path / "em.zarr/0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-50])
    code = "import sys; from elektronn2.data.volumes import open_volume; open_volume(sys.argv[1])[:]"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "em.zarr"], capture_output=True, text=True)
    assert done.stderr.strip().split("\n")[-1].startswith(f"OSError: {tmp_path}/em.zarr: the box f 0:1, z 0:70")


def test_a_missing_library_names_its_extra(monkeypatch):
    with pytest.raises(ImportError, match=r"needs the package no_such_thing.*pip install 'elektronn2\[volumes\]'"):
        extras.need("no_such_thing", "volumes")


# -- threads and networks --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FORMATS)
def test_threads(name, raw, tmp_path):
    volume = open_volume(FORMATS[name][0](tmp_path, raw))

    def check(seed):
        rng = np.random.default_rng(seed)
        low = [int(rng.integers(0, n)) for n in SHAPE]
        box = tuple(slice(a, int(rng.integers(a, n)) + 1) for a, n in zip(low, SHAPE))
        return np.array_equal(volume[box], raw[box])
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(check, range(60)))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Nothing is printed."""


@pytest.fixture
def server(tmp_path):
    """An http server of a folder."""
    handler = lambda *args: _Quiet(*args, directory=str(tmp_path))  # noqa: E731
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_over_http(raw, tmp_path, server):
    (tmp_path / "n").mkdir()
    write_precomputed(tmp_path, raw)
    write_n5(tmp_path / "n", raw)
    for address in (f"precomputed://{server}/em", f"{server}/n/em.n5/volumes/raw"):
        np.testing.assert_array_equal(open_volume(address)[:, 2:4, 5:], raw[:, 2:4, 5:])
    with pytest.raises(FileNotFoundError, match=f"{server}/none cannot be read as precomputed"):
        open_volume(f"precomputed://{server}/none")


@pytest.mark.parametrize("address", ["precomputed://{}/em", "n5:{}/em.n5/raw"])
def test_a_host_that_does_not_answer_is_given_up(address, monkeypatch):
    with socket.socket() as closed:  # its port is taken, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(tensorstore, "RETRIES", {"http_request_retries": {
            **tensorstore.RETRIES["http_request_retries"], "initial_delay": "1ms", "max_delay": "2ms"}})
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(OSError, match=f"{url}/em.* cannot be read as .*All 6 retry attempts failed"):
            open_volume(address.format(url))


def test_only_what_is_needed_is_read(raw):
    asked = []

    class Array:
        shape, dtype = raw.shape, raw.dtype

        def __getitem__(self, box):
            asked.append(box)
            return raw[box]
    Volume(Stored(Array()), "watched", "fzxy")[:, 2:4, 3, 5:10:2]
    assert asked == [np.s_[0:2, 2:4, 3:4, 5:10]]


@pytest.mark.parametrize("name", ["a.npz", "a.nii.gz", "em.mrc"])
def test_formats_that_cannot_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(OSError, match=f"{name} is of no format that can be read. Formats: h5, zarr.*h5save"):
        open_volume(tmp_path / name)
