"""Pickles of the first ELEKTRONN and ELEKTRONN2 read as plain data, without executing anything.

A pickle is a program for a small stack machine, and some of its instructions call whatever function the file
names. The machine here has no such instruction: it makes lists, dicts, numbers, texts and arrays by itself. A
name that the file mentions becomes a :class:`Reference`, an object of an old class a :class:`Record` that only
holds attributes, and everything else is refused where it stands (ModelFileError).
"""
import gzip
import math
import pickletools
import re
import reprlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from elektronn2.errors import ModelFileError

LARGEST = 2 ** 30  # bytes after decompression; far above any model of the time
MOST = 2 ** 22  # instructions; a model of the time has some thousands
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
BUILTINS = ("__builtin__", "builtins")
_MARK = object()


@dataclass(frozen=True)
class Reference:
    """A function or class that a pickle mentions by name; it is not imported."""
    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object of an old class: the class and the attributes."""
    cls: Reference
    attributes: dict = field(default_factory=dict)


class _DType:
    """A dtype while it is read: its byte order comes after it."""

    def __init__(self, code):
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise ModelFileError(f"an array of type {code[:20]!r}; only plain numbers are read")
        self.value = np.dtype(code)


def is_pickle(head):
    """Whether a file that begins with these 8 bytes is a pickle (protocol 2 or later) or gzip'd.

    The bytes 4 to 7 tell it from safetensors, which begins with a length that is never that large.
    """
    return head[:2] == b"\x1f\x8b" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
                                       and any(head[4:]))


def read_pickle(path, records=()):
    """What a pickle holds (gzip'd or not, of Python 2 or 3), as lists, tuples, dicts, numbers, texts, bytes and arrays.

    ``records``: pairs (module, name) of classes whose objects may be there, as :class:`Record`.

    Raises FileNotFoundError; ModelFileError for a file that is damaged, and for one that would call anything or holds
    objects of other kinds. Source of the instructions: the standard library's ``pickletools``, which only describes.

    >>> import pickle, tempfile
    >>> path = Path(tempfile.mkdtemp()) / 'old'
    >>> _ = path.write_bytes(pickle.dumps([1, {'w': np.ones(2)}], protocol=2))
    >>> read_pickle(path)
    [1, {'w': array([1., 1.])}]
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with open(path, "rb") as f:
            zipped = f.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as f:
            data = f.read(LARGEST + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ModelFileError(f"{path} is a damaged or truncated gzip file: {error}") from None
    if len(data) > LARGEST:
        raise ModelFileError(f"{path} holds more than {LARGEST:,} bytes, so it is not read.")
    machine = _Machine(records)
    try:
        return machine.run(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is refused at byte {machine.position}: {error}. Nothing of it was executed.") from None
    except Exception as error:  # whatever a damaged file leads to
        raise ModelFileError(f"{path} is no pickle, or it is truncated or damaged at byte {machine.position} "
                             f"({type(error).__name__}: {error}).") from None


class _Machine:
    """Instructions by the names that ``pickletools`` gives them."""

    def __init__(self, records):
        self.records = {Reference(*r) for r in records}
        self.stack, self.memo, self.position = [], {}, 0
        self.allowance = 0

    def run(self, data):
        self.allowance = 4 * len(data) + 2 ** 20
        for n, (code, argument, self.position) in enumerate(pickletools.genops(data)):
            if n >= MOST:
                raise ModelFileError(f"more than {MOST:,} instructions, which no model has")
            if code.name == "STOP":
                return self.pop()
            if code.name in VALUES:
                self.stack.append(CONSTANTS.get(code.name, argument))
            elif code.name in INSTRUCTIONS:
                INSTRUCTIONS[code.name](self, argument)
            else:
                raise ModelFileError(f"the instruction {code.name}, which the models of the time do not have")

    def last(self):
        """The object on top; a mark is none."""
        if self.stack[-1] is _MARK:
            raise ModelFileError("a mark in the place of an object")
        return self.stack[-1]

    def pop(self):
        item = self.last()
        del self.stack[-1]
        return item

    def pop_mark(self):
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def top(self, kind, doing):
        if not isinstance(self.last(), kind):
            raise ModelFileError(f"{doing} an object of {type(self.last()).__name__}")
        return self.last()

    def spend(self, size):
        """Stop a small file that asks for a large memory by copying one thing again and again."""
        self.allowance -= size
        if self.allowance < 0:
            raise ModelFileError("copies of more than the file holds")

    # -- containers ----------------------------------------------------------------------------------
    def extend(self, items):
        self.top(list, "appending to").extend(items)

    def set_items(self, items):
        self.top(dict, "setting items of").update(_pairs(items[::2], items[1::2]))

    def append(self, _):
        self.extend([self.pop()])

    def set_item(self, _):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def make_tuple(self, n):
        items = [self.pop() for _ in range(n)]
        self.stack.append(tuple(items[::-1]))

    def make_dict(self, _):
        items = self.pop_mark()
        self.stack.append(_pairs(items[::2], items[1::2]))

    def put(self, index):
        self.memo[len(self.memo) if index is None else index] = self.last()

    # -- objects -------------------------------------------------------------------------------------
    def global_(self, argument):
        self.stack.append(Reference(*argument.split(" ", 1)))

    def stack_global(self, _):
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ModelFileError("a name that is no text")
        self.stack.append(Reference(module, name))

    def new_object(self, cls, arguments):
        if not isinstance(cls, Reference) or cls not in self.records or arguments != ():
            raise ModelFileError(f"it would make an object of {_short(cls)}")
        self.stack.append(Record(cls))

    def new(self, _):
        arguments, cls = self.pop(), self.pop()
        self.new_object(cls, arguments)

    def obj(self, _):
        cls, *arguments = self.pop_mark()
        self.new_object(cls, tuple(arguments))

    def inst(self, argument):
        self.new_object(Reference(*argument.split(" ", 1)), tuple(self.pop_mark()))

    def reduce(self, _):
        arguments, function = self.pop(), self.pop()
        make = FUNCTIONS.get((function.module, function.name)) if isinstance(function, Reference) else None
        if make is None:
            raise ModelFileError(f"it would call {_short(function)}")
        if not isinstance(arguments, tuple):
            raise ModelFileError(f"arguments of {_short(function)} that are no tuple")
        self.stack.append(made := make(*arguments))
        self.spend(len(made) if isinstance(made, (bytes, dict)) else 0)

    def build(self, _):
        state, target = self.pop(), self.last()
        if isinstance(target, Record) and isinstance(state, dict):
            target.attributes.update(state)
            self.spend(len(state))
        elif isinstance(target, _DType) and isinstance(state, tuple):
            target.value = _byte_order(target.value, *state)
        elif type(target) is np.ndarray and isinstance(state, tuple):
            _fill(target, *state)
            self.spend(target.nbytes)
        else:
            raise ModelFileError(f"it would change {_short(target)}")


def _short(value):
    """A few words on a value, also if it is endless."""
    return str(value)[:200] if isinstance(value, Reference) else f"{reprlib.repr(value)[:80]} ({type(value).__name__})"


def _pairs(keys, values):
    if not all(type(k) in (str, int) for k in keys):  # the hash of a nested tuple can take forever
        raise ModelFileError("a dict whose keys are not texts or numbers")
    return dict(zip(keys, values, strict=True))


# -- what the calls of the old pickles mean: none of these runs anything that the file says ------------
def _ordered_dict(items=()):
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, (list, tuple)) and len(i) == 2 for i in items):
        raise ModelFileError("an OrderedDict of something else than pairs")
    return _pairs([k for k, _ in items], [v for _, v in items])


def _encode(text, codec="latin1"):
    if codec not in ("latin1", "latin-1") or not isinstance(text, str):
        raise ModelFileError(f"bytes in the encoding {_short(codec)}")
    return text.encode("latin1")


def _empty_bytes():
    return b""


def _new_array(cls, shape, code):
    if cls != Reference("numpy", "ndarray") or shape != (0,):
        raise ModelFileError(f"an array of class {_short(cls)}")
    return np.empty(0)


def _dtype(code, align=False, copy=True):
    return _DType(code)


def _byte_order(dtype, version, order, subtype, names, fields, *_):
    if order not in ("<", ">", "|", "=") or (subtype, names, fields) != (None, None, None):
        raise ModelFileError("a type of array that is not a plain number")
    return dtype if order in "|=" else dtype.newbyteorder(order)


def _numbers(dtype, raw, count):
    """``count`` numbers from their bytes (Python 2: a text)."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
        raise ModelFileError("an array of objects instead of numbers")
    if len(raw) != count * dtype.value.itemsize:
        raise ModelFileError(f"an array of {count} numbers with {len(raw)} bytes")
    return np.frombuffer(raw, dtype.value).astype(dtype.value.newbyteorder("="))


def _fill(array, version, shape, dtype, fortran, raw):
    """Set what an array holds, in place: the file may have mentioned it already."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n <= LARGEST for n in shape):
        raise ModelFileError(f"an array of shape {_short(shape)}")
    values = _numbers(dtype, raw, math.prod(shape))
    array.__setstate__((1, shape, values.dtype, bool(fortran), values.tobytes()))


def _scalar(dtype, raw):
    return _numbers(dtype, raw, 1)[0].item()


FUNCTIONS = {("collections", "OrderedDict"): _ordered_dict, ("_codecs", "encode"): _encode, ("numpy", "dtype"): _dtype,
             **{(m, "bytes"): _empty_bytes for m in BUILTINS},
             **{(m, "_reconstruct"): _new_array for m in MULTIARRAY}, **{(m, "scalar"): _scalar for m in MULTIARRAY}}

VALUES = {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT",
          "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
          "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
INSTRUCTIONS = {
    "PROTO": lambda m, _: None, "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.stack.append(_MARK), "POP": lambda m, _: m.stack.pop(), "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.last()),
    "PUT": _Machine.put, "BINPUT": _Machine.put, "LONG_BINPUT": _Machine.put, "MEMOIZE": _Machine.put,
    "GET": lambda m, i: m.stack.append(m.memo[i]), "BINGET": lambda m, i: m.stack.append(m.memo[i]),
    "LONG_BINGET": lambda m, i: m.stack.append(m.memo[i]),
    "EMPTY_LIST": lambda m, _: m.stack.append([]), "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "APPEND": _Machine.append, "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "EMPTY_DICT": lambda m, _: m.stack.append({}), "DICT": _Machine.make_dict,
    "SETITEM": _Machine.set_item, "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()), "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.make_tuple(1), "TUPLE2": lambda m, _: m.make_tuple(2), "TUPLE3": lambda m, _: m.make_tuple(3),
    "GLOBAL": _Machine.global_, "STACK_GLOBAL": _Machine.stack_global,
    "NEWOBJ": _Machine.new, "OBJ": _Machine.obj, "INST": _Machine.inst, "REDUCE": _Machine.reduce, "BUILD": _Machine.build,
}
