"""Synthetic EM-like volumes with barrier labels, instance ids and raw.

:func:`make_volume` paints one volume, :func:`write_neuro_data` writes a data
set in the layout of ``neuro_data_zxy``:

==========================  =======  =====  =================================
file                        dataset  dtype  content, axes (z,x,y)
==========================  =======  =====  =================================
``raw_0.h5`` ...            raw      uint8  grey values
``barrier_int16_0.h5`` ...  lab      int16  1 = cell boundary, 0 = interior
``ids_0.h5`` ...            ids      int32  cell ids > 0 (also under the barrier)
``preview_cubes.h5``        0, 1     uint8  raw without labels
``synthetic.json``                          seed and parameters
==========================  =======  =====  =================================

Label cubes are smaller than raw cubes and centred in them.  Boundaries are
dark lines, but organelles and whole cells are dark, too: the (smoothed) grey
value alone predicts the barrier badly, local shape well.  From a shell::

    python -m elektronn2.data.synthetic PATH --raw-shape 60,200,200 --seed 0
"""
import argparse
import json
import logging
import numbers
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage
from tqdm import tqdm

logger = logging.getLogger('elektronn2log')

__all__ = ['default_data_path', 'make_volume', 'write_neuro_data']

_RECORD = 'synthetic.json'
_VERSION = 1  # of the pictures: a change makes old data sets count as different
_N_PREVIEWS = 2


def _shape3(where, name, shape):
    """``shape`` as a tuple of three ints or ValueError."""
    try:
        out = tuple(shape)
    except TypeError:
        out = ()
    if len(out) != 3 or not all(isinstance(n, numbers.Integral) and n >= 4 for n in out):
        raise ValueError(f'{where}: {name} must be three integers (z,x,y), each at least 4, '
                         f'got {shape!r}. Pass for example {name}=(60, 200, 200).')
    return tuple(int(n) for n in out)


def _noise(rng, shape, scale, aniso):
    """Unit-variance noise float32 (z,x,y): B-spline, knots ``scale`` lateral voxels apart."""
    pos = [np.arange(n) / s + rng.random() for n, s in zip(shape, (scale / aniso, scale, scale))]
    out = rng.standard_normal([int(p[-1]) + 4 for p in pos], dtype=np.float32)
    for axis, p in enumerate(pos):
        i = p.astype(int)
        f = p - i
        w = np.stack(((1 - f)**3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3))
        w = (w / np.sqrt((w**2).sum(0).mean())).astype(np.float32)
        w = w.reshape((4,) + tuple(-1 if a == axis else 1 for a in range(3)))
        out = sum(np.take(out, i + k, axis) * w[k] for k in range(4))
    return out


def _ball(centre, radius, shape, aniso):
    """Slices of the box around a ball in the volume and the ball's mask in it."""
    box, square = [], []
    for c, n, a in zip(centre, shape, (aniso, 1.0, 1.0)):
        lo = max(int(np.ceil((c - radius) / a)), 0)
        hi = max(min(int((c + radius) // a) + 1, n), lo)
        box.append(slice(lo, hi))
        square.append((np.arange(lo, hi) * a - c)**2)
    mask = square[0][:, None, None] + square[1][:, None] + square[2] <= radius**2
    return tuple(box), mask


def _neurites(rng, shape, aniso, radius, fill):
    """Grow tubes along random walks, the thick ones first.

    Stops when the share ``fill`` of the volume is taken.  Returns ids int32
    (z,x,y), 0 = still free, and bool (z,x,y) mitochondria inside the tubes.
    """
    ids, mito = np.zeros(shape, np.int32), np.zeros(shape, bool)
    units, last = np.array((aniso, 1.0, 1.0)), np.array(shape) - 1
    extent = shape * units  # lateral voxels, as are all positions here
    todo, n = fill * ids.size, 0

    def free(pos):
        inside = np.all(pos > -1) and np.all(pos < extent)
        return inside and ids[tuple(np.clip(np.rint(pos / units).astype(int), 0, last))] in (0, n)

    for _ in range(int(100 + 1200 * np.prod(extent) / (16 * radius)**3)):
        if todo <= 0:
            break
        thickness = 1 + 1.1 * (todo / (fill * ids.size))**2
        r0 = radius * thickness * np.exp(0.15 * rng.standard_normal())
        start = rng.random(3) * (extent - units)
        n += 1
        if not free(start):
            n -= 1
            continue
        heading = rng.standard_normal(3) * (3.5, 1, 1)  # rather along z
        phase, has_mito = rng.random() * 6.3, False
        for sign in (1, -1):
            pos, way, s = start, sign * heading / np.linalg.norm(heading), 0.0
            for _ in range(int(20 + 160 * radius / r0)):
                r = r0 * (1 + 0.3 * np.sin(phase + sign * s / (4 * r0)))
                box, mask = _ball(pos, r, shape, aniso)
                mask &= ids[box] == 0
                ids[box][mask] = n
                todo -= mask.sum()
                if rng.random() < 0.085:  # a mitochondrion begins or ends
                    has_mito = not has_mito
                    shift = rng.standard_normal(3) * 0.2 * r
                if has_mito and r > 1.1 * radius:
                    box, mask = _ball(pos + shift, min(0.5 * r, 1.5 * radius), shape, aniso)
                    mito[box] |= mask & (ids[box] == n)
                for wobble in (0.15, 0.4, 0.8):
                    turned = way + wobble * rng.standard_normal(3)
                    turned /= np.linalg.norm(turned)
                    if free(pos + r * turned):
                        break
                else:
                    break  # it ends at another cell or at the volume's edge
                way, pos, s = turned, pos + 0.45 * r * turned, s + 0.45 * r
    return ids, mito


def _fill(ids, holes, aniso):
    """Give each voxel of ``holes`` the id of the nearest voxel outside them."""
    near = ndimage.distance_transform_edt(holes, (aniso, 1, 1), return_distances=False, return_indices=True)
    return ids[tuple(near)]


def _drop_fragments(ids, aniso):
    """Give all but the largest piece of each cell to the nearest other voxel."""
    lost = np.zeros(ids.shape, bool)
    for i, box in enumerate(ndimage.find_objects(ids), 1):
        if box is not None:
            parts, m = ndimage.label(ids[box] == i)
            if m > 1:
                keep = np.bincount(parts.ravel())[1:].argmax() + 1
                lost[box] |= (parts > 0) & (parts != keep)
    return _fill(ids, lost, aniso)


def _cells(rng, shape, aniso, radius):
    """Dense cells: ids int32 and mitochondria bool, both (z,x,y)."""
    ids, mito = _neurites(rng, shape, aniso, radius, fill=0.66)
    ids = _fill(ids, ids == 0, aniso)
    coords = np.indices(shape, dtype=np.float32)
    for size, scale in ((3.0, 22), (0.5, 7)):
        for c, unit in zip(coords, (aniso, 1, 1)):
            c += size / unit * _noise(rng, shape, scale, aniso)
    ids, mito = (ndimage.map_coordinates(a, coords, order=0, mode='mirror') for a in (ids, mito))
    return _drop_fragments(ids, aniso), mito


def _distance_to_boundary(ids, aniso):
    """Distance to the two layers of voxels along a change of id, float32."""
    edge = np.zeros(ids.shape, bool)
    for axis in range(3):
        i, e = np.moveaxis(ids, axis, 0), np.moveaxis(edge, axis, 0)  # views
        change = i[1:] != i[:-1]
        e[1:] |= change
        e[:-1] |= change
    if not edge.any():
        return np.full(ids.shape, 1e3, np.float32)
    return ndimage.distance_transform_edt(~edge, (aniso, 1, 1)).astype(np.float32)


def _paint(rng, ids, mito, dist, aniso, contrast):
    """Noise-free picture of the cells, float32 (z,x,y), about 0 to 1."""
    def noise(scale):
        return _noise(rng, ids.shape, scale, aniso)

    def blur(a, sigma):
        return ndimage.gaussian_filter(a, (sigma / aniso, sigma, sigma), truncate=3)

    # Cytoplasm: all grey levels equally often, for big and for small cells,
    # with a drift that is the same for neighbours.
    rank = np.argsort(np.argsort(np.bincount(ids.ravel())))
    level = (0.618034 * rank + rng.random()) % 1
    level = level.astype(np.float32)[ids] + 0.3 * noise(50)
    img = 0.38 + 0.77 * (1 - np.abs(1 - level % 2)) + 0.03 * (noise(3) + noise(7))
    # Endoplasmic reticulum: thin faint curves in patches of the interior.
    inside = np.clip((dist - 2.5) / 1.5, 0, 1) * np.clip(noise(20) - 0.2, 0, 1)
    img -= 0.06 * np.exp(-(noise(16) / 0.07)**2) * inside
    # Vesicles: small dark rings in clusters.
    spots = (rng.random(ids.shape, dtype=np.float32) < 0.02) & (noise(14) > 1) & (dist > 3.5)
    spots = spots.astype(np.float32)
    img -= 0.15 * np.clip(22 * blur(spots, 1.5) - 4.5 * blur(spots, 0.8), -0.5, 1.2)
    # Mitochondria: dark, a double membrane, stripes inside.
    mito = mito & (dist > 2)
    depth = ndimage.distance_transform_edt(mito, (aniso, 1, 1)).astype(np.float32)
    body = rng.normal(0.4, 0.05, rank.size).astype(np.float32)[ids] + 0.06 * np.sin(6 * noise(12))
    body += 0.06 * np.exp(-((depth - 3) / 0.8)**2) - 0.06 * np.exp(-(depth - 1)**2)
    img = np.where(mito, body, img)
    # Membranes of varying contrast, in places with a bright cleft between two.
    strength = contrast * np.clip(1 + 0.28 * noise(18), 0.65, 1.6)
    profile = np.exp(-(np.maximum(dist - 0.3, 0) / 1.1)**2)
    profile -= 0.7 * np.clip(0.5 * noise(15), 0, 1) * (dist < 0.5)
    return img - strength * profile


def _photograph(rng, img, aniso, noise):
    """Blur, uneven brightness, section jumps and noise; uint8 (z,x,y)."""
    img = ndimage.gaussian_filter(img, (0.8 / aniso, 0.7, 0.7), truncate=3)
    img += 0.06 * _noise(rng, img.shape, 60, aniso)
    gain, offset = rng.standard_normal((2, len(img), 1, 1), dtype=np.float32)
    img = (img - 0.5) * (1 + 0.04 * gain) + 0.5 + 0.04 * offset
    if noise > 1e-4:
        photons = 0.5 / noise**2
        img = rng.poisson(np.clip(img, 0.02, 1.4) * photons) / photons
        img += 0.4 * noise * rng.standard_normal(img.shape, dtype=np.float32)
    return np.clip(img * 205, 0, 255).astype(np.uint8)


def make_volume(shape, seed=0, aniso=2.0, radius=9.0, contrast=0.4, noise=0.035):
    """Paint a volume of brain-like tissue as a serial-section EM would show it.

    A function of its arguments only: the same call gives the same arrays
    (with the same versions of numpy and scipy).

    Parameters
    ----------
    shape : three ints (z,x,y), each at least 4
    seed : int >= 0 or tuple of such ints
    aniso : size of a voxel in z, in lateral voxels
    radius : of the thinnest neurites, in lateral voxels
    contrast : darkness of the membranes (white = 1)
    noise : standard deviation of the image noise at medium grey (white = 1)

    Returns
    -------
    raw : uint8 (z,x,y)
    ids : int32 (z,x,y), one number > 0 per cell; each cell is in one piece
    barrier : int16 (z,x,y), 1 = cell boundary, 0 = interior

    Raises ValueError for a bad shape, seed or number.

    >>> raw, ids, barrier = make_volume((16, 64, 64), seed=1)
    """
    shape = _shape3('make_volume', 'shape', shape)
    for name, value, low, high in (('aniso', aniso, 0.2, 20), ('radius', radius, 2, 1000),
                                   ('contrast', contrast, 0, 10), ('noise', noise, 0, 1)):
        if not (isinstance(value, numbers.Real) and low <= value <= high):
            raise ValueError(f'make_volume: {name} must be a number from {low} to {high}, got {value!r}.')
    seeds = tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    if not seeds or not all(isinstance(s, numbers.Integral) and s >= 0 for s in seeds):
        raise ValueError(f'make_volume: seed must be an integer >= 0 or a tuple of these, got {seed!r}.')
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([int(s) for s in seeds])))
    ids, mito = _cells(rng, shape, aniso, radius)
    dist = _distance_to_boundary(ids, aniso)
    img = _paint(rng, ids, mito, dist, aniso, contrast)
    return _photograph(rng, img, aniso, noise), ids, (dist <= 1.5).astype(np.int16)


def default_data_path():
    """``$XDG_CACHE_HOME/elektronn2/neuro_data_synthetic_24`` (default ~/.cache), for sets with previews of 24 sections."""
    cache = os.environ.get('XDG_CACHE_HOME', '')
    cache = Path(cache) if os.path.isabs(cache) else Path.home() / '.cache'
    return cache / 'elektronn2' / 'neuro_data_synthetic_24'


def _save(path, **arrays):
    with h5py.File(path, 'w') as f:
        for name, a in arrays.items():
            f.create_dataset(name, data=a, compression='gzip', compression_opts=1)


def write_neuro_data(path=None, raw_shape=(60, 200, 200), label_shape=(40, 140, 140), n_cubes=3,
                     preview_shape=(24, 200, 200), seed=0, overwrite=False):
    """Write a synthetic data set in the layout of ``neuro_data_zxy``.

    Returns at once if the same data set is already there.  All files are
    made in a hidden folder in ``path`` and moved to their names at the end.

    Parameters
    ----------
    path : folder, made if needed; None: :func:`default_data_path`
    raw_shape, label_shape, preview_shape : three ints (z,x,y); previews
        of neuro3d need 24 sections
    n_cubes : number of training cubes, each different
    seed : int >= 0
    overwrite : replace existing files of another data set

    Returns the path (:class:`pathlib.Path`).  Raises ValueError for bad or
    unfitting shapes and numbers, FileExistsError if files would be lost.

    >>> path = write_neuro_data('/tmp/neuro', seed=1)    # doctest: +SKIP
    """
    where = 'write_neuro_data'
    raw_shape = _shape3(where, 'raw_shape', raw_shape)
    label_shape = _shape3(where, 'label_shape', label_shape)
    preview_shape = _shape3(where, 'preview_shape', preview_shape)
    for axis, r, n in zip('zxy', raw_shape, label_shape):
        if n > r or (r - n) % 2:
            raise ValueError(
                f'{where}: axis {axis}: the label cube ({n}) is centred in the raw cube ({r}), so '
                f'the raw cube must be larger by an even number (or 0), not by {r - n}. '
                f'Change raw_shape={raw_shape} or label_shape={label_shape} on this axis.')
    for name, value, low in (('n_cubes', n_cubes, 1), ('seed', seed, 0)):
        if not isinstance(value, numbers.Integral) or value < low:
            raise ValueError(f'{where}: {name} must be an integer >= {low}, got {value!r}.')

    path = default_data_path() if path is None else Path(path).expanduser()
    names = [f'{kind}_{i}.h5' for i in range(n_cubes) for kind in ('raw', 'barrier_int16', 'ids')]
    names.append('preview_cubes.h5')
    record = dict(version=_VERSION, seed=int(seed), raw_shape=list(raw_shape),
                  label_shape=list(label_shape), preview_shape=list(preview_shape), files=names)
    try:
        old = json.loads((path / _RECORD).read_text())
        old_files = {n for n in old['files'] if os.path.basename(n) == n and n.endswith('.h5')}
    except (OSError, ValueError, LookupError, TypeError):  # none, or not ours
        old, old_files = None, set()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f'{where}: {path} is a file. Pass the path of a folder.')
    present = [n for n in names + [_RECORD] if (path / n).exists()]
    if old == record and len(present) == len(names) + 1 and not overwrite:
        logger.info(f'Synthetic data set is already in {path}')
        return path
    if present and old != record and not overwrite:
        raise FileExistsError(
            f'{where}: {path} already has {", ".join(present[:3])}{" ..." * (len(present) > 3)} of '
            f'another data set. Choose another path or pass overwrite=True (shell: --overwrite).')

    path.mkdir(parents=True, exist_ok=True)
    crop = tuple(slice((r - n) // 2, (r + n) // 2) for r, n in zip(raw_shape, label_shape))
    with tempfile.TemporaryDirectory(prefix='.partial-', dir=path) as tmp:
        tmp = Path(tmp)
        previews = {}
        for i in tqdm(range(n_cubes + _N_PREVIEWS), desc='Synthetic cubes', unit='cube'):
            if i < n_cubes:
                raw, ids, barrier = make_volume(raw_shape, (seed, 0, i))
                _save(tmp / f'raw_{i}.h5', raw=raw)
                _save(tmp / f'barrier_int16_{i}.h5', lab=barrier[crop])
                _save(tmp / f'ids_{i}.h5', ids=ids[crop])
            else:
                j = i - n_cubes
                previews[str(j)] = make_volume(preview_shape, (seed, 1, j))[0]
        _save(tmp / 'preview_cubes.h5', **previews)
        (tmp / _RECORD).write_text(json.dumps(record, indent=1) + '\n')
        (path / _RECORD).unlink(missing_ok=True)  # from here on incomplete
        for name in old_files - set(names):  # of a larger data set
            (path / name).unlink(missing_ok=True)
        for name in names + [_RECORD]:
            os.replace(tmp / name, path / name)
    logger.info(f'Wrote {n_cubes} synthetic cubes and {_N_PREVIEWS} previews to {path}')
    return path


def _zxy(text):
    return tuple(int(n) for n in text.split(','))


def main(argv=None):
    """Command line: ``python -m elektronn2.data.synthetic [PATH] [options]``."""
    parser = argparse.ArgumentParser(prog='python -m elektronn2.data.synthetic',
                                     description='Write a synthetic EM data set (neuro_data_zxy layout).')
    parser.add_argument('path', nargs='?', metavar='PATH', help=f'folder (default: {default_data_path()})')
    for name, default in (('raw', '60,200,200'), ('label', '40,140,140'), ('preview', '24,200,200')):
        parser.add_argument(f'--{name}-shape', type=_zxy, default=default, metavar='Z,X,Y',
                            help='default: %(default)s')
    parser.add_argument('--n-cubes', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace the files of another data set')
    args = parser.parse_args(argv)
    try:
        write_neuro_data(**vars(args))
    except (ValueError, OSError) as e:
        parser.error(str(e))


if __name__ == '__main__':
    main()
