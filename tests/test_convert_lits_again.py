"""Converting again: nothing to do, something else, half done, killed, and what nnU-Net already made of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lits_source import DATASET, codalab, convert, three_cases, tree

from nnunet_ext.cli import main
from nnunet_ext.common.errors import InputError
from nnunet_ext.dataset_conversion import writer

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def flat(nnunet_folders: Path) -> Path:
    return three_cases(nnunet_folders / "in")


def test_same_again_is_nothing_and_another_needs_overwrite(nnunet_folders: Path, flat: Path) -> None:
    folder = convert(flat).folder
    before = tree(folder)
    assert convert(flat).layout is None
    with pytest.raises(InputError, match=r"--target \(tumour then, regions now\).*--overwrite"):
        convert(flat, target="regions")
    os.utime(flat / "volume-0.nii", ns=(0, 0))
    with pytest.raises(InputError, match=r"source files.*--overwrite"):
        convert(flat)
    assert tree(folder) == before
    convert(flat, target="regions", overwrite=True)
    assert json.loads((folder / "dataset.json").read_text())["labels"]["tumour"] == 2
    assert os.listdir(nnunet_folders / "nnUNet_raw") == [DATASET]


def test_damage_to_a_finished_dataset_is_noticed(nnunet_folders: Path, flat: Path) -> None:
    folder = convert(flat).folder
    next(folder.glob("labelsTr/*")).unlink()
    with pytest.raises(InputError, match=r"labelsTr/lits_00[\s\S]*--overwrite"):
        convert(flat)
    convert(flat, overwrite=True)
    assert convert(flat).layout is None


def test_a_dataset_of_unknown_origin_is_not_touched(nnunet_folders: Path, flat: Path) -> None:
    (nnunet_folders / "nnUNet_raw" / DATASET).mkdir()
    (nnunet_folders / "nnUNet_raw" / DATASET / "mine").write_text("mine")
    with pytest.raises(InputError, match=r"not made by this command.*--overwrite"):
        convert(flat)
    assert (nnunet_folders / "nnUNet_raw" / DATASET / "mine").exists()


@pytest.mark.parametrize("where", [".", "download", "..", "../..", f"../.{DATASET}.partial/old"])
def test_a_source_that_overwriting_would_delete_is_refused(nnunet_folders: Path, where: str) -> None:
    final = nnunet_folders / "nnUNet_raw" / DATASET
    three_cases(final / "download")
    source = (final / where).resolve()
    if not source.exists():
        three_cases(source)
    before = tree(nnunet_folders)
    with pytest.raises(InputError, match=r"would delete the download") as caught:
        convert(source, overwrite=True)
    assert str(source) in str(caught.value)
    assert str(final) in str(caught.value)
    assert tree(nnunet_folders) == before


def test_a_source_file_behind_a_link_into_the_dataset_is_refused(nnunet_folders: Path, flat: Path) -> None:
    final = nnunet_folders / "nnUNet_raw" / DATASET
    final.mkdir()
    (flat / "volume-0.nii").rename(final / "volume-0.nii")
    (flat / "volume-0.nii").symlink_to(final / "volume-0.nii")
    with pytest.raises(InputError, match=r"volume-0\.nii does\)"):
        convert(flat, overwrite=True)
    assert (final / "volume-0.nii").exists()


def test_checksums_look_at_content_not_at_time(nnunet_folders: Path, flat: Path) -> None:
    folder = convert(flat, checksum=True, link="copy").folder
    sources = json.loads((folder / "conversion.json").read_text())["request"]["sources"]
    assert all(len(source["sha256"]) == 64 for source in sources.values())
    os.utime(flat / "volume-0.nii", ns=(0, 0))
    assert convert(flat, checksum=True, link="copy").layout is None
    data = bytearray((flat / "volume-0.nii").read_bytes())
    data[-1] ^= 1
    (flat / "volume-0.nii").write_bytes(data)
    with pytest.raises(InputError, match="source files"):
        convert(flat, checksum=True, link="copy")


def test_dry_run_writes_nothing(nnunet_folders: Path, flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "lits", "--source", str(flat), "--dry-run", "--num-processes", "1"]) == 0
    assert "would be written" in capsys.readouterr().out
    assert not os.listdir(nnunet_folders / "nnUNet_raw")


def test_more_processes_give_the_same_bytes(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SECONDS_PER_WORKER", 1e-9)
    folder = convert(flat, file_ending=".nii.gz").folder
    one = tree(folder)
    convert(flat, file_ending=".nii.gz", overwrite=True, num_processes=2)
    assert tree(folder) == one


@pytest.mark.slow
def test_killed_at_random_moments_it_completes_with_the_same_bytes(nnunet_folders: Path) -> None:
    source = codalab(nnunet_folders / "in", 8, test_volumes=1)
    program = (
        "import sys, time; from pathlib import Path; from nnunet_ext.cli import main; "
        "from nnunet_ext.dataset_conversion import writer; writer._SECONDS_PER_WORKER = 1e-9; "
        "replace = Path.replace; Path.replace = lambda *names: (time.sleep(0.05), replace(*names))[1]; sys.exit(main())"
    )  # workers even for this little, and files slow enough to be hit in the middle
    command = [sys.executable, "-c", program, "convert", "lits", "--source", str(source)]
    command += ["--file-ending", ".nii.gz", "--num-processes", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    final = convert(source, file_ending=".nii.gz").folder
    expected = tree(final)
    final.rename(nnunet_folders / "reference")
    work = final.with_name(f".{DATASET}.partial")
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = len(list(work.glob("new/*/*.gz"))) + moments.randrange(2, 5)
        while len(list(work.glob("new/*/*.gz"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert work.exists()
        assert not final.exists()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "kept from an interrupted run" in done.stdout
    assert tree(final) == expected
    assert os.listdir(nnunet_folders / "nnUNet_raw") == [DATASET]
