"""What several test files share."""

import errno
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.user_cache import cache_folder

# Tests have a cache folder of their own, below, but take minutes to compile what the user's has.
if folder := cache_folder():
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "kernels"))

_PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real recordings beside the project; tests that ask for it are skipped without it."""
    folder = _PROJECT.parent / "shared" / "speech"
    if not folder.is_dir():
        pytest.skip("no real speech: expected the folder ../shared/speech beside the project")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what decoders prepare away from the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def untouched_log() -> Iterator[None]:
    """Leave the project's logger as it was: commands set its level, and other tests count messages."""
    log = logging.getLogger("asr")
    handlers = list(log.handlers)
    log.setLevel(logging.NOTSET)  # a fixture of a whole module may have run a command before
    yield
    log.setLevel(logging.NOTSET)
    log.handlers[:] = handlers


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: (exit status, stdout, stderr)."""
    from asr.cli import main

    def run_command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_command


@pytest.fixture
def run_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a recipe in this process: its status, stdout and stderr."""

    def run_in_process(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        path = _PROJECT / "recipes" / f"{name}.py"
        command = [str(path), *map(str, arguments)]
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "argv", command)
            patch.syspath_prepend(path.parent)
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(path), run_name="__main__")
        for other in path.parent.glob("*.py"):  # recipes import each other by their bare names
            sys.modules.pop(other.stem, None)
        assert isinstance(end.value.code, int)
        return subprocess.CompletedProcess(command, end.value.code, *capsys.readouterr())

    return run_in_process


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of scores: the report and the pictures take longer than all else in them."""
    monkeypatch.setattr("asr.commands.evaluate.write_page", lambda *_: None)
    monkeypatch.setattr("asr.scoring.tuning.draw_surface", lambda *_: None)


def no_space(*_: object) -> None:
    """Stands in for a function of the system that writes, where the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several processes of pytest-xdist, which start after this, one thread.

    More threads than cores make a recurrent net's training many times slower.
    """
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Escape names of files that are not UTF-8 in captured output: pytest-xdist cannot send them."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for real speech, so that `-m "not speech"` leaves them out."""
    for item in items:
        if "speech" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.speech)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU on this machine")


# A language that a tiny model learns by heart in seconds: each letter is a tone, a space is a pause.
_HZ = {"a": 300.0, "b": 900.0, "c": 2400.0, " ": 0.0}
_LETTER_S = 0.16


@dataclass(frozen=True)
class Tones:
    """Recordings in the language of tones, and a model that knows them."""

    folder: Path  # holds nothing but the recordings and tones.jsonl
    texts: dict[str, str]  # the words of each file, by its name, in the order of the names
    model: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "tones.jsonl"

    @property
    def files(self) -> list[str]:
        return [str(self.folder / name) for name in self.texts]

    @staticmethod
    def sound(text: str, sample_rate: int = 16000, seed: int = 0) -> NDArray[np.float32]:
        """(samples,) a text in the language of tones, with a little noise."""
        t = np.arange(round(_LETTER_S * sample_rate)) / sample_rate
        letters = [0.3 * np.sin(2 * np.pi * _HZ[letter] * t) * np.hanning(len(t)) for letter in text]
        noise = 1e-3 * np.random.default_rng(seed).standard_normal(len(t) * len(text))
        return (np.concatenate(letters) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Tones:
    """Eight recordings of 0.3 to 2 s and a model that transcribes them without an error."""
    import soundfile

    spoken = ["ab c", "cab", "a b c a b c", "bb", "c a", "abcabc", "b ac bca c", "cc aa"]
    folder = tmp_path_factory.mktemp("tones")
    rows, texts = [], {}
    for number, text in enumerate(spoken):
        name = f"t{number}.wav"
        texts[name] = text
        soundfile.write(folder / name, Tones.sound(text, seed=number), 16000, subtype="PCM_16")
        rows.append(
            {"id": f"t{number}", "audio_filepath": name, "duration": _LETTER_S * len(text), "text": text}
        )
    (folder / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path_factory.mktemp("model") / "tones.safetensors"
    _learn(folder, texts, model)
    return Tones(folder, texts, model)


@pytest.fixture
def model(tones: Tones, tmp_path: Path) -> Path:
    """A copy of the model that knows the language of tones, which a test may change."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(tones.model.read_bytes())
    return path


def _learn(folder: Path, texts: dict[str, str], path: Path) -> None:
    """Train on known positions of the letters (not with CTC, which takes longer to leave its plateau)."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from asr.frontend.audio import read_audio
    from asr.frontend.features import FeatureConfig, frame_count, log_mel
    from asr.model.acoustic import AcousticModel, ModelSettings
    from asr.model.encoder import EncoderConfig
    from asr.model.saved import save_model
    from asr.text.characters import CharTokenizer

    features = FeatureConfig(n_mels=20)
    encoder = EncoderConfig(width=8, depth=1, dropout=0.0, channels=4)
    tokenizer = CharTokenizer(tuple(sorted(_HZ)))
    torch.manual_seed(0)
    model = AcousticModel(ModelSettings(features, encoder, tokenizer, "english"))
    # Twice: as recorded, and with other noise, so that it knows the letters and not the noise.
    waveforms = [read_audio(folder / name, 16000) for name in texts]
    waveforms += [torch.from_numpy(Tones.sound(text, seed=100 + n)) for n, text in enumerate(texts.values())]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    frames = log_mel(pad_sequence(waveforms, batch_first=True), features)
    targets = torch.zeros(len(waveforms), -(-frames.shape[1] // 4), dtype=torch.int64)
    for row, text in zip(targets, [*texts.values()] * 2, strict=True):
        row[2 : 2 + 4 * len(text) : 4] = torch.tensor(tokenizer.encode(text))  # the middle of each 4 steps
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    weight = torch.tensor([0.3, 1.0, 1.0, 1.0, 1.0])  # most steps are blank
    for _ in range(120):
        log_probs, _, _ = model(frames, frame_count(lengths, features))
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(log_probs.transpose(1, 2), targets, weight).backward()
        optimizer.step()
    save_model(
        path, model, {"date": "2026-01-02T03:04:05+00:00", "commit": "abc1234", "epoch": 7, "dev_wer": 12.5}
    )
