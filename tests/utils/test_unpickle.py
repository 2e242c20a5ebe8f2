"""Pickles as data: the same as pickle.load for harmless ones; attacks that work against pickle.load do nothing here."""
import collections
import copyreg
import functools
import gzip
import operator
import os
import pickle
import random
import struct
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
from old_models import pickled

from elektronn2.errors import ModelFileError
from elektronn2.neuromancer.legacy import RECORDS
from elektronn2.utils import unpickle
from elektronn2.utils.unpickle import Record, read_pickle

MODEL = Path(__file__).parents[1] / "oracle" / "legacy" / "mdl_and_bn.mdl"


def read(data, path):
    path.write_bytes(data)
    return read_pickle(path, RECORDS)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


# -- harmless files -------------------------------------------------------------------------------------
def same(a, b):
    if isinstance(b, np.ndarray):
        return type(a) is np.ndarray and a.dtype == b.dtype.newbyteorder("=") and a.shape == b.shape and (a == b).all()
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    return type(a) is type(b) and a == b


VALUES = [None, True, 0, -1, 255, 65536, -2 ** 31, 2 ** 70, 1.5, "", "é", "x" * 300, b"", b"\xff\x00", b"y" * 300, (), (1,),
          (1, 2), (1, 2, 3, 4), [], [1, [2, (3,)]], {}, {"a": {"b": 1}, 3: 4},
          collections.OrderedDict([("b", 1), ("a", [2])])]
ARRAYS = [np.arange(6).reshape(2, 3), np.asfortranarray(np.random.default_rng(0).random((3, 4, 2), np.float32)),
          np.array(2.5), np.zeros((0, 3)), np.array([True, False]), np.arange(3, dtype=">i2"),
          np.arange(5, dtype=np.uint8)[::2]]


@pytest.mark.parametrize("python2", [False, True])
@pytest.mark.parametrize("value", [*VALUES, *ARRAYS], ids=lambda v: repr(v)[:20])
def test_values(value, python2, file):
    """The value itself, from a file in the style of the time."""
    if python2 and isinstance(value, bytes):
        value = value.decode("latin1")  # texts and bytes are one there
    assert same(read(pickled(value, python2), file), value)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:20])
def test_values_of_other_protocols(value, protocol, file):
    if isinstance(value, bytes) and value and protocol < 2:
        pytest.skip("written as a text")
    assert same(read(pickle.dumps(value, protocol), file), value)


def test_numbers_of_numpy(file):
    assert same(read(pickle.dumps([np.float32(0.5), np.int64(3), np.bool_(True)], 2), file), [0.5, 3, True])


def test_shared_arrays_stay_shared(file):
    """An array that a file mentions again, also before it has been filled."""
    a = np.arange(3.0)
    b, c, d = read(pickle.dumps([a, a, {"x": a}], 2), file)
    assert b is c is d["x"] and b.tolist() == [0, 1, 2]


def test_objects_of_old_classes(file):
    """They hold what the file says; methods and attributes of a class are not among it."""
    descriptors, roles = read_pickle(MODEL, RECORDS)
    descriptor, params = descriptors["c0"]
    assert type(descriptor) is Record and descriptor.attributes["args"][1:] == [4, (3, 3), (2, 2)]
    assert params["w"].shape == (4, 1, 3, 3) and roles["input_node"] == "x"


def test_gzip(file):
    file.write_bytes(gzip.compress(MODEL.read_bytes()))
    assert list(read_pickle(file, RECORDS)[0]) == list(read_pickle(MODEL, RECORDS)[0])


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_pickle(tmp_path / "nothing")


# -- attacks --------------------------------------------------------------------------------------------
class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Build:
    """Pickled as a call, and a state for what it returns."""

    def __init__(self, function, args, state):
        self.parts = function, args, state

    def __reduce__(self):
        return self.parts


def dumped(make, protocol=2):
    return lambda command: pickle.dumps(make(command), protocol)


def opcodes(text):
    """A pickle as it stands, with the command in the place of CMD."""
    return lambda command: text.replace("CMD", command).encode("latin1")


def array_of(value):
    array = np.empty(1, object)
    array[0] = value
    return array


def module_os():
    return Call(__import__, "os")


ATTACKS = {  # name: a function command -> pickle
    **{f"os.system, protocol {p}": dumped(lambda c: Call(os.system, c), p) for p in range(6)},
    "eval": dumped(lambda c: Call(eval, f"__import__('os').system({c!r})")),
    "exec": dumped(lambda c: Call(exec, f"import os; os.system({c!r})")),
    "subprocess": dumped(lambda c: Call(subprocess.call, ["sh", "-c", c])),
    "getattr chain": dumped(lambda c: Call(operator.call, Call(getattr, module_os(), "system"), c)),
    "attrgetter": dumped(lambda c: Call(operator.call, Call(operator.call, operator.attrgetter("system"), module_os()), c)),
    "methodcaller": dumped(lambda c: Call(operator.call, operator.methodcaller("system", c), module_os())),
    "partial": dumped(lambda c: Call(operator.call, functools.partial(os.system, c))),
    "map": dumped(lambda c: Call(list, Call(map, os.system, [c]))),
    "dotted name": opcodes("\x80\x04\x8c\x09posixpath\x8c\x09os.system\x93S'CMD'\n\x85R."),
    "INST": opcodes("(S'CMD'\nios\nsystem\n."),
    "OBJ": opcodes("(cos\nsystem\nS'CMD'\no."),
    "NEWOBJ of a class with a constructor": opcodes("\x80\x02cfunctools\npartial\n(cos\nsystem\nS'CMD'\nt\x81p0\n"
                                                    "0coperator\ncall\n(g0\ntR."),
    "copyreg": opcodes("coperator\ncall\n(ccopyreg\n__newobj__\n(cfunctools\npartial\ncos\nsystem\nS'CMD'\ntRtR."),
    "state that brings a method": opcodes("ctypes\nSimpleNamespace\n(tR(dS'__setstate__'\ncos\nsystem\nsbS'CMD'\nb."),
    "in a list in a dict": dumped(lambda c: [{"a": (1, Call(os.system, c))}]),
    "array of objects": dumped(lambda c: array_of(Call(os.system, c))),
    "pickle in a pickle": dumped(lambda c: Call(pickle.loads, pickle.dumps(Call(os.system, c)))),
    "pickle in an array": dumped(lambda c: Call(pickle.loads, np.frombuffer(pickle.dumps(Call(os.system, c)), np.uint8))),
    "thrown away": opcodes("cos\nsystem\n(S'CMD'\ntR0N."),
    "name of an extension": lambda c: b"\x80\x02\x82\xf0(S'" + c.encode() + b"'\ntR.",
}


@pytest.fixture
def extension():
    """A number that stands for os.system in pickles of this process."""
    copyreg.add_extension("os", "system", 0xf0)
    yield
    copyreg.remove_extension("os", "system", 0xf0)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack, zipped, file, tmp_path, extension, monkeypatch):
    """Each of them makes a file when plain pickle reads it; here it is refused, and nothing happens."""
    monkeypatch.chdir(tmp_path)
    data = ATTACKS[attack]("touch made")
    pickle.loads(data)
    assert os.path.exists("made"), "the attack does not work, so it tests nothing"
    os.remove("made")
    with pytest.raises(ModelFileError, match=r"refused at byte \d+: .*Nothing of it was executed"):
        read(gzip.compress(data) if zipped else data, file)
    assert not os.path.exists("made")


def test_attack_within_a_model(file, tmp_path, monkeypatch):
    """A real model with a call in the place of one of its numbers."""
    monkeypatch.chdir(tmp_path)
    number, call = b"K\x04K\x03K\x03\x86", b"cos\nsystem\n(S'touch made'\ntRK\x03K\x03\x86"
    data = MODEL.read_bytes()
    assert data.count(number) == 1
    with pytest.raises(ModelFileError, match="it would call os.system"):
        read(data.replace(number, call), file)
    assert not os.path.exists("made")


CLASS = "celektronn2.neuromancer.graphmanager\nNodeDescriptor\n"
REFUSED = {  # other files that nothing good comes from: what is named
    "forged class of an allowed module": (CLASS.replace("NodeDescriptor", "os.system") + ")\x81.", "os.system"),
    "dotted name in an allowed module": ("\x80\x04\x8c\x05numpy\x8c\x1blib._npyio_impl.os.system.x\x93)R.", "call numpy"),
    "another class of an allowed module": ("celektronn2.neuromancer.graphmanager\nGraphManager\n)\x81.", "GraphManager"),
    "allowed class with arguments": (CLASS + "(NtR.", "call elektronn2"),
    "constructor of an allowed class": (CLASS + "(K\x01t\x81.", "NodeDescriptor"),
    "state of a class": (CLASS + "}S'__new__'\ncos\nsystem\nsb.", "it would change elektronn2"),
    "state of a function": ("cnumpy.core.multiarray\n_reconstruct\n}S'a'\nK\x01sb.", "it would change numpy"),
    "state that brings a method": (CLASS + ")\x81}S'__setstate__'\ncos\nsystem\nsbS'touch made'\nb.", "it would change"),
    "state of slots": (CLASS + ")\x81N}S'a'\nK\x01s\x86b.", "it would change"),
    "persistent id": ("Pos.system\n.", "PERSID"),
    "binary persistent id": ("S'a'\nQ.", "BINPERSID"),
    "set": ("\x80\x04\x8f.", "EMPTY_SET"),
    "buffer out of band": ("\x80\x05\x97.", "NEXT_BUFFER"),
    "codec": ("c_codecs\nencode\n(S'a'\nS'zlib'\ntR.", "encoding 'zlib'"),
    "array subclass": ("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(K\x00tS'b'\ntR.", "class numpy.matrix"),
    "text as dtype": ("cnumpy\ndtype\n(S'S5'\nK\x00K\x01tR.", "'S5'"),
    "objects as dtype": ("cnumpy\ndtype\n(S'O8'\nK\x00K\x01tR.", "'O8'"),
    "fields as dtype": ("cnumpy\ndtype\n(S'i4'\nK\x00K\x01tR(K\x03S'<'\nN(S'a'\nt}K\x04K\x01K\x00tb.", "plain number"),
    "lists as keys": ("}]K\x01s.", "keys"),
    "appending to an array": ("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntRK\x01a.", "ndarray"),
}
ARRAY = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tS'b'\ntR"
F4 = "cnumpy\ndtype\n(S'f4'\nK\x00K\x01tR"
STATES = {"too few bytes": f"(K\x02t{F4}\x89S'abcd'\n", "huge shape": f"(J\xff\xff\xff\x7ft{F4}\x89S'abcd'\n",
          "negative shape": f"(J\xff\xff\xff\xfft{F4}\x89S'abcd'\n", "array of a list": f"(K\x01t{F4}\x89]",
          "no dtype": "(K\x01tN\x89S'abcd'\n", "many axes": "(" + "K\x01" * 40 + f"t{F4}\x89S'abcd'\n"}
REFUSED.update({name: (f"{ARRAY}(K\x01{state}tb.", "array of") for name, state in STATES.items()})


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, file):
    """The error says what was refused and where."""
    text, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=rf"refused at byte \d+: .*{message}"):
        read(text.encode("latin1"), file)


def nested(levels, push="e"):
    """A tuple that holds itself twice, ``levels`` deep: its hash, its print and its walk take forever."""
    return b"\x80\x02)" + b"2\x86" * levels


ENDLESS = {
    "key that takes forever": (b"}" + nested(60)[2:] + b"Ns.", "keys"),
    "function that takes forever to print": (nested(60) + b")R.", "it would call"),
    "class that takes forever": (nested(60) + b")\x81.", "make an object"),
    "copies of a text": (b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 10 ** 6) + b"a" * 10 ** 6
                         + b"U\x06latin1\x86q\x01" + b"h\x00h\x01R" * 1000 + b".", "copies"),
    "copies of a dict": (b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(" + b"".join(
        b"]K" + bytes([i]) + b"aNa" for i in range(200)) + b"eh\x01\x85q\x02" + b"h\x00h\x02R" * 20000 + b".", "copies"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless(name, file):
    """Small files that would keep a reader busy, or fill the memory."""
    data, message = ENDLESS[name]
    with pytest.raises(ModelFileError, match=message):
        read(data, file)


@pytest.mark.parametrize("data", [
    b"\x80\x04\x8e" + struct.pack("<Q", 2 ** 62) + b"abc.", b"\x80\x04\x8d" + struct.pack("<Q", 2 ** 40) + b"abc.",
    b"\x80\x02X" + struct.pack("<I", 2 ** 32 - 1) + b"a.", b"\x80\x02T" + struct.pack("<i", -5) + b"abcde.",
    b"\x80\x02\x8b" + struct.pack("<i", 2 ** 31 - 1) + b"\x01.", b"\x80\x02\x8b" + struct.pack("<i", -1) + b".",
    b"I" + b"9" * 10 ** 5 + b"\n.",
    b"\x80\x02r\xff\xff\xff\xffj\xff\xff\xff\xff.",
    b"R.", b"0.", b"e.", b"t.", b"2.", b"b.", b"h\x05.", b"(", b"", b"\x80\x02", b"N", b"(.", b"(\x85.", b"(q\x00.", b"(2.",
    b"no pickle at all",
    b"(K\x01d.", b"cos\n.", b"\x80\x09N"], ids=lambda d: repr(d[:12]))
def test_damaged(data, file):
    """Lengths that the file does not have, and instructions that find nothing on the stack."""
    with pytest.raises(ModelFileError, match="truncated or damaged|refused at"):
        read(data, file)


def test_too_large(file, monkeypatch):
    """A small gzip file of many zeros."""
    monkeypatch.setattr(unpickle, "LARGEST", 10 ** 6)
    with pytest.raises(ModelFileError, match="more than 1,000,000 bytes"):
        read(gzip.compress(b"\0" * (10 ** 6 + 1)), file)


def test_too_many_instructions(file, monkeypatch):
    """A small gzip file of a long program."""
    monkeypatch.setattr(unpickle, "MOST", 1000)
    with pytest.raises(ModelFileError, match="at byte 1001: more than 1,000 instructions"):
        read(gzip.compress(b"\x80\x02" + b"N" * 2000 + b"."), file)


def test_damaged_gzip(file):
    data = gzip.compress(MODEL.read_bytes())
    for damaged in (data[:100], data[:-4], data[:50] + b"\xff" * 50 + data[100:]):
        with pytest.raises(ModelFileError, match="gzip"):
            read(damaged, file)


def test_damage_at_any_place(file):
    """A model cut short, or with some bytes changed: a ModelFileError or some plain data, nothing else."""
    data, rng = MODEL.read_bytes(), random.Random(0)
    outcomes = collections.Counter()
    for i in range(600):
        changed = bytearray(data)
        if i % 5 == 0:
            del changed[rng.randrange(len(data)):]
        for _ in range(rng.randint(1, 4) if i % 5 else 0):
            changed[rng.randrange(len(data))] = rng.choice(b"RbcoiQP\x81\x82\x93.(tue" + bytes([rng.randrange(256)]))
        try:
            read(bytes(changed), file)
            outcomes["read"] += 1
        except ModelFileError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 20 and outcomes["refused"] > 20


def test_nothing_is_imported_by_name():
    """The reader has no way to a function but its own table: it neither imports nor evaluates nor asks for attributes."""
    assert not {"importlib", "pickle", "getattr", "eval", "exec", "__import__", "import_module"} & names_in(unpickle)


def names_in(module):
    """Global names that the functions of a module use."""
    found, stack = set(), [v.__code__ for v in vars(module).values() if isinstance(v, types.FunctionType)]
    stack += [f.__code__ for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__
              for f in vars(c).values() if isinstance(f, types.FunctionType)]
    while stack:
        code = stack.pop()
        found.update(code.co_names)
        stack += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return found
