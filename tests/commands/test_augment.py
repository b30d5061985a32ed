"""`asr augment` writes the samples of training, and prints what was drawn."""

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from asr.batching.batches import BatchConfig, Batches
from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.cli import main
from asr.frontend.audio import read_audio
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig, log_mel
from asr.manifests.manifest import read_manifest
from tests.conftest import no_space

OPTIONS = [
    "--augment.room-share", "0.7", "--augment.noise-share", "0.7", "--augment.gain-share", "0.5",
    "--augment.silence-share", "0.5", "--augment.telephone-share", "0.5",
]  # fmt: skip
CONFIG = AugmentConfig(
    room_share=0.7, noise_share=0.7, gain_share=0.5, silence_share=0.5, telephone_share=0.5
)


def augment(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    """(exit status, lines on stdout, stderr) of the command."""
    status = main(["augment", *arguments])
    captured = capsys.readouterr()
    return status, captured.out.split("\n")[:-1], captured.err


def training_batches(
    manifest: Path, epoch: int, seed: int, cache_dir: Path | None, config: AugmentConfig = CONFIG
) -> dict[str, torch.Tensor]:
    """Each utterance's part of the training's batches: samples without a cache, else features."""
    utterances, text, features = read_manifest(manifest), TextConfig(), FeatureConfig()
    examples = make_examples(utterances, learn_tokenizer(utterances, text), text, features, 4, config.speeds)
    batches = Batches(examples, features, BatchConfig(cache_dir=cache_dir), config, seed=seed)
    rows = {}
    for batch in batches.load(batches.plan(epoch)):
        examples = batch.waveforms if cache_dir is None else batch.features(FeatureConfig())
        for name, audio, frames in zip(batch.ids, examples, batch.frame_lengths.tolist(), strict=True):
            rows[name] = audio if cache_dir is None else audio[:frames]
    return rows


@pytest.mark.parametrize("given", ["manifest", "files"])
def test_what_is_written_is_what_training_gets(
    given: str, tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that sound like training, made by other code, at another epoch, seed or order: the samples are
    the training's to the bit, and so are the features up to float32's rounding."""
    out = tmp_path / "augmented"
    sources = [str(tones.manifest)] if given == "manifest" else tones.files
    status, lines, err = augment(capsys, *sources, "--out", str(out), "--epoch", "3", "--seed", "7", *OPTIONS)
    assert (status, len(lines), err) == (0, 8, "")
    samples = training_batches(tones.manifest, 3, 7, None)
    features = training_batches(tones.manifest, 3, 7, tmp_path / "cache")
    assert len(samples) == 8
    for name, row in samples.items():
        written = read_audio(out / f"{name}-epoch3.wav", 16_000)
        assert torch.equal(written, row[: len(written)])
        assert not row[len(written) :].any()
        torch.testing.assert_close(log_mel(written.unsqueeze(0), FeatureConfig())[0], features[name])
    assert soundfile.info(out / "t0-epoch3.wav").subtype == "FLOAT"


def test_lines_say_what_was_drawn(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A speed, SNR, RT60 or gain that is not reported, or reported for another file."""
    arguments = [*tones.files[:3], "--out", str(tmp_path), "--augment.mel-warp", "0.9", "1.1"]
    options = ["--augment.room-share", "1", "--augment.noise-share", "1", "--augment.gain-share", "1"]
    _, lines, _ = augment(capsys, *arguments, *options)
    assert len({line.partition(": ")[2] for line in lines}) == 3
    for number, line in enumerate(lines):
        assert re.fullmatch(
            rf"{tmp_path}/t{number}-epoch1\.wav: speed (0\.9|1|1\.1); room of RT60 0\.\d\d s, direct sound "
            rf"[+-][\d.]+ dB; (white|pink|brown|speech-shaped) noise at [\d.]+ dB SNR; gain [+-][\d.]+ dB; "
            rf"mel bands warped by [\d.]+",
            line,
        )


def test_manifest_of_what_was_written(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noisy test data that cannot be scored: transcripts, durations and paths are those of the new files."""
    augment(capsys, str(tones.manifest), "--out", str(tmp_path), "--augment.speeds", "0.8", *OPTIONS)
    written = read_manifest(tmp_path / "manifest.jsonl")
    assert [item.text for item in written] == list(tones.texts.values())
    for item in written:
        assert item.audio_filepath.parent == tmp_path
        assert item.duration == pytest.approx(soundfile.info(item.audio_filepath).duration)


def test_recorded_noise(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The real folder of noise, with speech in opus: the samples are again the training's."""
    source = sorted((speech / "LibriSpeech" / "dev-clean").rglob("*.opus"))[:1]
    if not source:
        pytest.skip("no LibriSpeech/dev-clean in the real speech")
    noise = ["--augment.noise-share", "1", "--augment.noise-dir", str(speech / "noise")]
    status, lines, _ = augment(capsys, str(source[0]), "--out", str(tmp_path), *noise)
    assert status == 0
    assert re.search(r"; noise \w+\.opus at [\d.]+ dB SNR$", lines[0])
    row = (
        f'{{"audio_filepath": "{source[0]}", "duration": {soundfile.info(source[0]).duration}, "text": "a"}}'
    )
    (tmp_path / "one.jsonl").write_text(row)
    config = AugmentConfig(noise_share=1.0, noise_dir=speech / "noise")
    samples = training_batches(tmp_path / "one.jsonl", 1, 1, None, config)
    assert torch.equal(read_audio(tmp_path / f"{source[0].stem}-epoch1.wav", 16_000), samples[source[0].stem])


# ----------------------------------------------------------------------------------------------------------
# what cannot be used


def test_bad_file_among_good_ones(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One damaged recording that keeps the others from being written, or fails with status 0."""
    (tmp_path / "bad.wav").write_text("x")
    arguments = [tones.files[0], str(tmp_path / "bad.wav"), tones.files[1], "--out", str(tmp_path / "out")]
    status, lines, err = augment(capsys, *arguments)
    assert (status, len(lines)) == (1, 2)
    assert re.match(r"error: .*bad\.wav: not a readable audio file", err)
    assert augment(capsys, str(tmp_path / "bad.wav"), "--out", str(tmp_path / "out"))[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no file to augment. Expected audio files, folders, manifests, or globs in quotes."),
        (["x.wav", "--epoch", "0"], "--epoch must be at least 1. Got 0."),
        (["x.wav", "--sample-rate", "16"], "--sample-rate must be at least 1000 Hz. Got 16."),
        (
            ["x.wav", "--augment.noise-share", "1", "--augment.noise-dir", "asr/text"],
            "--augment.noise-dir asr/text: no audio files in this folder. Expected recordings of noise that",
        ),
        (["x.wav", "y/x.wav"], "two recordings would be written to out/x-epoch1.wav. Expected different"),
    ],
)
def test_wrong_settings(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback, or a message that does not say what to type."""
    status, lines, err = augment(capsys, *arguments, "--out", "out")
    assert (status, lines) == (2, [])
    assert err.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_recording_is_not_overwritten(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording that is lost because the output has its name."""
    source = tmp_path / "a.wav"
    source.write_bytes(Path(tones.files[0]).read_bytes())
    (tmp_path / "a-epoch1.wav").symlink_to(source)
    status, _, err = augment(capsys, str(source), "--out", str(tmp_path))
    assert status == 2
    assert "a-epoch1.wav is itself to be augmented. Choose another --out." in err
    assert source.read_bytes() == Path(tones.files[0]).read_bytes()


def test_full_disk(
    tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a recording that looks like a whole one, or a traceback of libsndfile's."""

    monkeypatch.setattr("os.fsync", no_space)
    status, lines, err = augment(capsys, *tones.files[:2], "--out", str(tmp_path / "out"))
    assert (status, lines) == (2, [])
    assert err == (
        f"error: {tmp_path / 'out' / 't0-epoch1.wav'}: No space left on device. Free some space, or write to "
        "another folder.\n"
    )
    assert list((tmp_path / "out").iterdir()) == []
