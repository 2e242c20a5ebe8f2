"""``elektronn2-convert``: the new file is the old model, nothing is overwritten, and nothing is left of a failure."""
from pathlib import Path

import numpy as np
import pytest
from old_models import pickled

from elektronn2.neuromancer import serialize
from elektronn2.neuromancer.model import modelload
from elektronn2.scripts import convert

ORACLE = Path(__file__).parents[1] / "oracle"
OLD = ORACLE / "legacy" / "dense2d.mdl"


def run(*arguments):
    return convert.main(list(map(str, arguments)))


def test_converted_file_predicts_the_same(tmp_path, caplog):
    """Predictions of the new file, against those of the original; the log says what was written."""
    with caplog.at_level("INFO", "elektronn2log"):
        assert run(OLD, tmp_path / "new.mdl") == 0
    assert "10 nodes, 336 parameters" in caplog.text
    assert not serialize.is_old(tmp_path / "new.mdl") and list(tmp_path.iterdir()) == [tmp_path / "new.mdl"]
    with np.load(ORACLE / "dense2d.npz") as f:
        image, wanted = f["img"], f["dense"]
    got = modelload(tmp_path / "new.mdl").predict_dense(image)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_nothing_is_overwritten(tmp_path, caplog):
    new = tmp_path / "new.mdl"
    new.write_text("precious")
    assert run(OLD, new) == 2 and new.read_text() == "precious"
    assert "exists" in caplog.text and "--overwrite" in caplog.text
    assert run(OLD, new, "--overwrite") == 0 and not serialize.is_old(new)


@pytest.mark.parametrize("arguments, message", [
    (["nothing.mdl", "new.mdl"], "no model file"), (["evil.mdl", "new.mdl"], "it would call os.system"),
    (["ours.mdl", "new.mdl"], "no conversion"), (["old.mdl", "."], "is a folder"),
    (["old.mdl", "old.mdl", "--overwrite"], "are the same"), (["old.mdl", "no/new.mdl"], "cannot be written"),
    (["foreign.mdl", "new.mdl"], "no model of ELEKTRONN2")])
def test_mistakes(arguments, message, tmp_path, monkeypatch, caplog):
    """One line that says what is wrong; the old file stays, and no new one is left."""
    monkeypatch.chdir(tmp_path)
    Path("old.mdl").write_bytes(OLD.read_bytes())
    Path("evil.mdl").write_bytes(b"\x80\x02cos\nsystem\nU\x0atouch made\x85R.")
    Path("foreign.mdl").write_bytes(pickled([1, 2]))
    modelload(OLD).save("ours.mdl")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert run(*arguments) == 2
    assert message in caplog.records[-1].message and caplog.records[-1].levelname == "ERROR"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_that_reads_differently_is_not_kept(tmp_path, monkeypatch, caplog):
    """What is read again is compared: here a weight that was changed on the way."""
    write = serialize.write

    def changed(description, tensors, path):
        write(description, {**tensors, "c0/b": tensors["c0/b"] + 1}, path)
    monkeypatch.setattr(serialize, "write", changed)
    assert run(OLD, tmp_path / "new.mdl") == 2 and list(tmp_path.iterdir()) == []
    assert "differs from what was converted" in caplog.text
