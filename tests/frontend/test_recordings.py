"""Opening recordings: what decodes is the length, whatever the header says."""

import io
import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.frontend import containers
from asr.frontend.audio import audio_info, read_audio
from asr.frontend.audio_files import find_audio

RATE = 16_000  # Hz
SAMPLES = 2 * RATE + 777


@pytest.fixture
def waveform() -> NDArray[np.float32]:
    """A chirp, whose every part is different."""
    seconds = np.arange(SAMPLES) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 400 * seconds) * seconds)).astype(np.float32)


def _encode(path: Path, samples: NDArray[np.float32], codec: str, sample_format: str, rate: int) -> None:
    """Written by FFmpeg, in the container of the suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", format=sample_format)
        stream.bit_rate = 64_000
        stream.codec_context.open()
        resampler = av.AudioResampler(sample_format, "mono", rate, stream.codec_context.frame_size)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def _likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Correlation of two waveforms over their common length."""
    common = min(len(first), len(second))
    return float(np.corrcoef(first[:common], second[:common])[0, 1])


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "rate", "padding"),
    [
        ("a.m4a", "aac", "fltp", RATE, 16),
        ("a.mp4", "aac", "fltp", 44_100, 16),
        ("a.webm", "libopus", "flt", 48_000, 1024),
        ("a.mkv", "flac", "s16", RATE, 0),
        ("a.oga", "flac", "s16", RATE, 0),
        ("a.wma", "wmav2", "fltp", RATE, 4096),
    ],
)
def test_what_only_ffmpeg_reads(
    name: str,
    codec: str,
    sample_format: str,
    rate: int,
    padding: int,
    waveform: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    """Guards the formats of telephones, browsers and films, without encoders' padding where it is marked."""
    _encode(tmp_path / name, waveform, codec, sample_format, rate)
    read = read_audio(tmp_path / name, RATE).numpy()
    assert SAMPLES - 16 <= len(read) <= SAMPLES + padding
    lost = 512 if codec == "wmav2" else 0  # FFmpeg's encoder marks its delay wrongly there
    assert _likeness(read, waveform[lost:]) > 0.95


def test_flac_of_unknown_length(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards flac that was written to a pipe: its header has 0 for the number of samples."""
    soundfile.write(tmp_path / "a.flac", waveform, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO's total samples
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    read = read_audio(tmp_path / "a.flac", RATE).numpy()
    assert len(read) == SAMPLES
    assert np.abs(read - waveform).max() < 1e-4
    assert audio_info(tmp_path / "a.flac").samples == SAMPLES


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_a_frame_count(mode: str, waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards mp3 that was written to a pipe: its length was guessed by the first frame's bit rate."""
    quiet_then_loud = np.concatenate([waveform * 1e-3, waveform])
    whole = tmp_path / "a.mp3"
    soundfile.write(whole, quiet_then_loud, RATE, bitrate_mode=mode, compression_level=0.5)
    content = whole.read_bytes()
    second_frame = content.index(content[:2], 4)  # after the frame that holds the count
    (tmp_path / "b.mp3").write_bytes(content[second_frame:])
    read = read_audio(tmp_path / "b.mp3", RATE).numpy()
    assert 2 * SAMPLES <= len(read) <= 2 * SAMPLES + 3 * 1152  # with the encoder's padding
    assert len(read_audio(whole, RATE)) == 2 * SAMPLES  # without: its header counts it


def test_wav_of_a_recorder_that_was_killed(
    waveform: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards recordings whose header was never finished: both sizes are 0."""
    path = tmp_path / "killed.wav"
    soundfile.write(path, waveform, RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = bytes(4)
    at = content.index(b"data") + 4
    content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    assert len(read_audio(path, RATE)) == SAMPLES
    assert "its header has no length" in caplog.text


def test_streams_one_after_the_other(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards chained Ogg files, of which libsndfile reads the first stream only."""
    for name in ("vorbis", "opus"):
        path = tmp_path / f"one.{name}"
        soundfile.write(path, waveform, RATE, format="OGG", subtype=name.upper())
        chained = tmp_path / f"two.{name}"
        chained.write_bytes(2 * path.read_bytes())
        read = read_audio(chained, RATE).numpy()
        assert abs(len(read) - 2 * SAMPLES) < 0.06 * RATE
        assert _likeness(read[-RATE:], np.concatenate([waveform, waveform])[-len(read) :][-RATE:]) > 0.9 or (
            name == "vorbis"  # whose second stream may begin some samples late
        )


def test_unfinished_ogg_is_cut_short(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards against half a recording with a full transcript; whoever asks gets what is there."""
    soundfile.write(tmp_path / "a.ogg", np.tile(waveform, 10), RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(AudioError, match="cut short"):
        read_audio(tmp_path / "a.ogg", RATE)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_partial_recordings_on_request(
    suffix: str, waveform: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, waveform, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="cut short"):
        read_audio(path, RATE)
    read = read_audio(path, RATE, partial=True).numpy()
    assert 0.2 * SAMPLES < len(read) < 0.8 * SAMPLES
    assert _likeness(read, waveform) > 0.95
    assert "what could be decoded is used" in caplog.text


def test_pipes(waveform: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards named pipes, which have no size and cannot be read twice, and the standard input."""
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    content = (tmp_path / "a.wav").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert len(read_audio(tmp_path / "pipe", RATE)) == SAMPLES
    writer.join()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert find_audio(["-"]) == [Path("-")]
    assert len(read_audio(Path("-"), RATE)) == SAMPLES
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(AudioError, match="the stream is empty"):
        read_audio(Path("-"), RATE)


@pytest.mark.parametrize("kind", ["opus", "two streams", "mp3", "m4a", "oga"])
def test_standard_input_is_read_as_a_file_is(
    kind: str, waveform: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards what is looked into before it is decoded: Opus on a pipe was damaged, MP3 was there twice."""
    path = tmp_path / f"a.{kind}"
    if kind in ("m4a", "oga"):
        _encode(path, waveform, *{"m4a": ("aac", "fltp"), "oga": ("flac", "s16")}[kind], RATE)
    else:
        container = {"mp3": ("MP3", None)}.get(kind, ("OGG", "OPUS"))
        soundfile.write(path, waveform, RATE, format=container[0], subtype=container[1])
    content = path.read_bytes() * (2 if kind == "two streams" else 1)
    path.write_bytes(content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_audio(Path("-"), RATE).equal(read_audio(path, RATE))


def test_a_film_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
        )
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match=r"not a readable audio file \(no sound in it\)"):
        read_audio(tmp_path / "silent.mp4", RATE)


def test_a_part_of_what_ffmpeg_reads(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards segments: they are the same samples as that slice of the whole."""
    soundfile.write(tmp_path / "a.mp3", waveform, RATE)
    whole = read_audio(tmp_path / "a.mp3", RATE)
    part = read_audio(tmp_path / "a.mp3", RATE, offset_s=0.7, duration_s=0.5)
    assert len(part) == RATE // 2
    assert part.equal(whole[round(0.7 * RATE) : round(1.2 * RATE)])
    with pytest.raises(AudioError, match=r"the segment ends at 9\.7 s but the recording at 2\.04856 s"):
        read_audio(tmp_path / "a.mp3", RATE, offset_s=0.7, duration_s=9)


def test_folders_say_what_they_leave_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "asr")
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "b.M4A", "sub/c.txt", "d.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert find_audio([str(tmp_path)]) == [tmp_path / "a.wav", tmp_path / "b.M4A"]
    assert "left out, no audio files by their endings: d.jpg, sub/c.txt" in caplog.text


def test_an_ogg_file_is_scanned_once(
    waveform: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards segments of long recordings: each would read the whole file; one that changed is read again."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, waveform, RATE, format="OGG", subtype="VORBIS")
    scanned: list[int] = []
    original = containers._begins_twice
    monkeypatch.setattr(containers, "_begins_twice", lambda data: scanned.append(len(data)) or original(data))
    for offset_s in (0.0, 0.5, 1.0):
        assert len(read_audio(path, RATE, offset_s=offset_s, duration_s=0.5)) == RATE // 2
    assert scanned == [path.stat().st_size]
    path.write_bytes(2 * path.read_bytes())
    assert len(read_audio(path, RATE)) > 1.9 * SAMPLES
    assert len(scanned) == 2


@pytest.mark.parametrize("suffix", ["au", "aiff", "caf", "wav"])
def test_a_recorder_that_was_killed(
    suffix: str, waveform: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards recordings whose header has no length yet (RF64 for wav): all samples, and a warning."""
    path, form = tmp_path / f"a.{suffix}", "RF64" if suffix == "wav" else suffix.upper()
    with soundfile.SoundFile(tmp_path / "open", "w", RATE, 1, "PCM_16", format=form) as file:
        file.write(waveform)
        file.flush()
        path.write_bytes((tmp_path / "open").read_bytes())
    assert _likeness(read_audio(path, RATE).numpy(), waveform) > 0.99
    assert audio_info(path).samples == SAMPLES
    assert "its header has no length, as after a crash of the recorder" in caplog.text


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_a_part_of_a_codec_without_seeking(
    subtype: str, waveform: NDArray[np.float32], tmp_path: Path
) -> None:
    """Guards segments of telephone recordings, where libsndfile cannot seek: they were a traceback."""
    soundfile.write(tmp_path / "a.wav", waveform[::2], RATE // 2, subtype=subtype)
    whole = read_audio(tmp_path / "a.wav", RATE // 2)
    part = read_audio(tmp_path / "a.wav", RATE // 2, offset_s=0.5, duration_s=0.25)
    assert part.equal(whole[RATE // 4 : RATE // 4 + RATE // 8])


def test_a_cut_film(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards WebM and Matroska that were cut short: FFmpeg reads what is there without a word."""
    _encode(tmp_path / "a.webm", waveform, "libopus", "flt", 48_000)
    whole = (tmp_path / "a.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=rf"the header promises {len(whole)} bytes, the file has .* copy or"):
        read_audio(tmp_path / "cut.webm", RATE)
    assert RATE // 2 < len(read_audio(tmp_path / "cut.webm", RATE, partial=True)) < SAMPLES - RATE // 2


def test_two_recordings_in_a_file(waveform: NDArray[np.float32], tmp_path: Path) -> None:
    """Guards `cat a b > c`: the second is read, or reported, never lost without a word."""
    for name in ("a.flac", "a.wav"):
        soundfile.write(tmp_path / name, waveform, RATE)
        (tmp_path / name).write_bytes(2 * (tmp_path / name).read_bytes())
    assert len(read_audio(tmp_path / "a.flac", RATE)) == 2 * SAMPLES
    with pytest.raises(AudioError, match=r"another recording begins at byte .*: make it a file of its own"):
        read_audio(tmp_path / "a.wav", RATE)
    assert len(read_audio(tmp_path / "a.wav", RATE, partial=True)) == SAMPLES


def test_two_rates_in_a_file(
    waveform: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards Ogg streams that FFmpeg cannot join: said, and not called damaged."""
    data = b""
    for rate in (RATE, RATE // 2):
        soundfile.write(tmp_path / "a.ogg", waveform, rate, format="OGG", subtype="VORBIS")
        data += (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(data)
    assert 0.9 * SAMPLES < len(read_audio(tmp_path / "a.ogg", RATE, partial=True)) <= SAMPLES
    assert "another recording begins after 2.0 s, with another rate or other channels" in caplog.text
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("name", ["http:x.m4a", "co:lon.m4a", "pipe:0", "-dash.m4a", "new\nline.m4a"])
def test_names_that_look_like_addresses(
    name: str, waveform: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards names with a colon, which FFmpeg takes for a protocol: one would even be fetched."""
    monkeypatch.chdir(tmp_path)
    _encode(Path("a.m4a"), waveform, "aac", "fltp", RATE)
    Path("a.m4a").rename(name)
    assert len(read_audio(Path(name), RATE)) >= SAMPLES - 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ffconcat version 1.0\nfile a.wav\n", r"not a readable audio file \(a list of other files\)"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "a pointer of Git LFS .* git lfs pull"),
        (b"PK\x03\x04\x14\0", "b.flac is a zip archive. Expected an audio file. Unpack it: unzip "),
        (b"OggS", "cut short"),
    ],
)
def test_what_is_no_recording(
    content: bytes, message: str, waveform: NDArray[np.float32], tmp_path: Path
) -> None:
    """Guards a list that would read other files of the disk, and messages that say what to do."""
    soundfile.write(tmp_path / "a.wav", waveform, RATE)
    if content == b"OggS":  # the headers of a stream, without its sound
        soundfile.write(tmp_path / "a.ogg", waveform, RATE, format="OGG", subtype="VORBIS")
        whole = (tmp_path / "a.ogg").read_bytes()
        content = whole[: whole.rfind(content) - 1]
    (tmp_path / "b.flac").write_bytes(content)
    with pytest.raises(AudioError, match=message):
        read_audio(tmp_path / "b.flac", RATE, partial=True)
