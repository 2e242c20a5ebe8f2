"""Lists of data files, as users give them, and the errors if there are none."""
from pathlib import Path

from elektronn2.data.volumes import Address, Volume
from elektronn2.data.volumes.opening import as_address


def file_list(name, folder, files):
    """What :func:`~elektronn2.data.volumes.open_volume` takes, from a folder (or None) and a list of volumes in it.

    ``files``: of pairs (file name, name of the data set), addresses, arrays. ``name``: of the argument, 'd_files' or
    'l_files'. ValueError or TypeError naming it, or that of the folder.
    """
    try:
        folder = None if folder is None else Path(folder).expanduser()
    except TypeError:
        raise TypeError(f"{name[0]}_path must be the path of a folder, got {folder!r}.") from None
    if not isinstance(files, (list, tuple)):
        raise ValueError(f"{name} must be a list of (file name, name of the data set) or of addresses, got {files!r}.")
    if len(files) == 2 and all(isinstance(f, str) for f in files) and "." in files[0] and "." not in files[1]:
        raise ValueError(f"{name} must be a list of pairs; of one pair it is [{tuple(files)!r}].")
    return [file if isinstance(file, Volume) or hasattr(file, "dtype") else _address(name, folder, file, files)
            for file in files]


def _address(name, folder, file, files):
    pair = isinstance(file, (tuple, list))
    if not isinstance(file, (str, Path)) and not (pair and len(file) == 2):
        raise ValueError(f"{name} must be a list of (file name, name of the data set) or of addresses, got {files!r}.")
    if pair and not isinstance(file[1], str):
        raise TypeError(f"{name}: the name of the data set in {Path(file[0]).name} must be a string, got {file[1]!r}.")
    try:
        address = as_address(file, folder)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if address.local is not None and not address.local.is_absolute() and folder is None:
        raise ValueError(f"BatchCreatorImage needs {name[0]}_path, the folder of {address.path}; or give the whole path.")
    return address


def mask_pairs(m_path, m_files, n):
    """(path, name of the data set) or None, for each of ``n`` cubes."""
    if m_files is None:
        return [None] * n
    try:
        given = [i for i, pair in enumerate(m_files) if pair is not None]
    except TypeError:
        raise ValueError(f"m_files must be a list of (file name, name of the data set), or None; got {m_files!r}.") from None
    if len(m_files) != n:
        raise ValueError(f"m_files needs one pair, or None, for each of the {n} cubes, got {len(m_files)}.")
    pairs = dict(zip(given, file_list("m_files", m_path, [m_files[i] for i in given])))
    return [pairs.get(i) for i in range(n)]


def title(source):
    """A short name of a member of such a list."""
    if not isinstance(source, Address):
        return getattr(source, "name", "array")
    return source.location.rstrip("/").rpartition("/")[2] + (f":{source.key}" if source.key else "")


def check_files(sources):
    """Raise FileNotFoundError, listing all that are missing and how to get them."""
    absent = [source.location for source in sources if isinstance(source, Address) and source.is_missing]
    if not absent:
        return
    folders = sorted({str(Path(path).parent) for path in absent if not Path(path).parent.is_dir()})
    if folders and not all(Path(folder).is_absolute() for folder in folders):
        folders[-1] += f" (relative paths begin in the folder you are in, {Path.cwd()})"
    no_folder = f"There is no folder {', '.join(folders)}. " if folders else ""
    raise FileNotFoundError("These data files are missing:\n  " + "\n  ".join(absent) + f"\n{no_folder}{how_to_get(absent)}")


def how_to_get(absent):
    """Where volumes come from, for who lacks those at the paths ``absent``."""
    hint = "Correct the path, or make volumes: python -m elektronn2.data.synthetic PATH"
    if any("neuro_data_zxy" in str(path) for path in absent):
        hint = ("To get the neuro_data_zxy volumes: python -m elektronn2.data.download neuro_data_zxy, or unpack "
                "http://elektronn.org/downloads/neuro_data_zxy.zip into ~/neuro_data_zxy.\n" + hint)
    return hint
