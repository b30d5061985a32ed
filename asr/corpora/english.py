"""English speech of several corpora, put together for a model of English at large.

    english/train.jsonl, english/dev.jsonl    manifests of all of it, no speaker in both
    speechocean762/test/utt2spk               the speakers of speechocean762's test part

The manifests name audio of LibriSpeech, Common Voice, speechocean762, LJSpeech and others, each under its
licence, in folders beside `english`. Some transcripts of LJSpeech have digits: how the numbers are spoken is
not written down (1933 is a year or a count), so that these utterances are not trained on. The dev set holds
LibriSpeech and Common Voice; for accented English, every eighth of speechocean762's test speakers is moved
to it here.
"""

from collections.abc import Sequence
from pathlib import Path

from asr.errors import DataError
from asr.manifests.left_out import report_left_out
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Splits, Utterance

__all__ = ["SETS", "by_set", "prepare"]

_EVERY = 8  # of the speakers of speechocean762's test part, the first of so many is for dev

SETS = {"LibriSpeech": "LibriSpeech", "Common Voice": "common_voice", "accented": "speechocean762"}
"""The kinds of speech in dev, and the folder of each."""


def prepare(root: Path) -> Splits:
    """All utterances for training, and dev with accented speakers; there is no test set.

    Args:
        root: the folder that holds `english` and the corpora.

    Returns:
        Train and dev in the order of their manifests, dev with the accented speakers at its end. Training
        utterances with digits in their transcripts are left out, and logged.

    Raises:
        DataError: a manifest, an audio file or the list of speakers is missing, or a speaker would be in
            train and dev.
    """
    train, dev = (read_manifest(root / "english" / f"{part}.jsonl") for part in ("train", "dev"))
    accented = _accented_speakers(root / "speechocean762" / "test" / "utt2spk")
    dev += [utterance for utterance in train if utterance.speaker in accented]
    train = [utterance for utterance in train if utterance.speaker not in accented]
    both = {utterance.speaker for utterance in train} & {utterance.speaker for utterance in dev} - {""}
    if both:
        raise DataError(
            f"{root / 'english'}: {len(both)} speakers are in train and in dev, such as {min(both)}. "
            f"Expected none. Take them out of one of the manifests."
        )
    numbers = {
        one.id: "its transcript has digits, not words" for one in train if any(map(str.isdigit, one.text))
    }
    report_left_out(numbers, len(train), "training utterances")
    return Splits(train=[one for one in train if one.id not in numbers], dev=dev, test=[])


def by_set(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances of each kind of speech in `SETS`, by the folder of their audio; without empty ones."""
    found = {
        name: [utterance for utterance in utterances if folder in utterance.audio_filepath.parts]
        for name, folder in SETS.items()
    }
    return {name: chosen for name, chosen in found.items() if chosen}


def _accented_speakers(path: Path) -> set[str]:
    """Speakers for dev, as the manifests name them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}. Expected lines of an utterance and its "
            f"speaker, as speechocean762 has them. Correct --data.root."
        ) from error
    speakers = sorted({line.split()[1] for line in lines if len(line.split()) == 2})
    return {f"so{speaker}" for speaker in speakers[::_EVERY]}
