"""Commands in wav.scp: which file they decode, without running them."""

import pytest

from asr.corpora.folder.kaldi_commands import decoded_file


@pytest.mark.parametrize(
    ("command", "file", "channel"),
    [
        ("sph2pipe -f wav -p -c 2 swb/sw02001.sph |", "swb/sw02001.sph", 1),
        ("/opt/kaldi/tools/sph2pipe_v2.5/sph2pipe -f wav a.wv1 |", "a.wv1", None),
        ("flac -c -d -s 84-121123-0000.flac |", "84-121123-0000.flac", None),
        ("sox 'my talks/one.mp3' -r 16000 -c 1 -b 16 -t wav - |", "my talks/one.mp3", None),
        ("sox -t wav call.wav -t wav - remix 2 rate 8k |", "call.wav", 1),
        ("ffmpeg -v error -i a.m4a -ac 1 -ar 16000 -f wav - |", "a.m4a", None),
        ("sph2pipe -f wav -c 1 a.sph | sox -t wav - -r 16000 -t wav - |", "a.sph", 0),
        ("cat a.wav |", "a.wav", None),
        ("flac -cds Bücher/teil:1,#2.flac |", "Bücher/teil:1,#2.flac", None),
    ],
)
def test_commands_that_only_decode(command: str, file: str, channel: int | None) -> None:
    """The data folders of Switchboard, WSJ, LibriSpeech and Common Voice, of which nothing could be read."""
    assert decoded_file(command) == (file, channel)


@pytest.mark.parametrize(
    "command",
    [
        "sox a.wav -t wav - speed 0.9 |",
        "sox a.wav -t wav - trim 3 5 |",
        "sox a.wav -t wav - rate 8k tempo 1.1 |",
        "sox -v 0.5 a.wav -t wav - |",
        "sox a.wav b.wav -t wav - |",
        "sox a.wav -t wav - remix 1,2 |",
        "sph2pipe -f wav -t 1:2 a.sph |",
        "sph2pipe -f wav -c 0 a.sph |",
        "flac -c -d -s --skip=0:30 a.flac |",
        "ffmpeg -ss 3 -i a.m4a -f wav - |",
        "ffmpeg -i a.m4a -af atempo=1.1 -f wav - |",
        "sph2pipe a.sph | sox -t wav - -t wav - speed 1.1 |",
        "wav-reverberate --impulse-response=rir.wav a.wav - |",
        "cat a.wav > b; rm c |",
        "sox 'a.wav -t wav - |",
        "cat - |",
        "|",
        "cat a.wav",
    ],
)
def test_what_changes_the_recording(command: str) -> None:
    """Audio that is not what the folder's owner trains on, taken for it in silence."""
    assert decoded_file(command) is None
