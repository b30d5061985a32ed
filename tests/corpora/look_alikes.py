"""Look-alikes: a tiny copy of each public corpus, in its folders, and what has to be read from it."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from asr.corpora.corpus import hold_out

Rows = dict[str, list[tuple[str, str, str]]]  # split -> (id, speaker, text) of each utterance


def sound(path: Path, seconds: float = 0.1) -> None:
    """A recording in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    if suffix == ".g722":  # 8 bits are two samples at 16 kHz
        path.write_bytes(bytes(round(8000 * seconds)))
        return
    kinds = {".sph": "NIST", ".wv1": "NIST", ".opus": "OGG", ".mp3": "MP3", ".flac": "FLAC"}
    kind = kinds.get(suffix, "WAV")
    subtype = {"OGG": "OPUS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    rate = 16_000
    samples = 0.1 * np.sin(np.arange(round(rate * seconds)) / 5)
    soundfile.write(os.fsencode(path), samples, rate, format=kind, subtype=subtype)


def long_and_short(folder: Path) -> tuple[Path, Path]:
    """A recording of 3 s, which utterances are parts of, and one of half a second."""
    long, short = folder / "long.wav", folder / "b.flac"
    sound(long, 3.0)
    sound(short, 0.5)
    return long, short


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def yesno(root: Path) -> Rows:
    names = [f"{number:08b}" for number in range(60)]
    names = ["_".join(name) for name in names]
    for name in names:
        sound(root / "waves_yesno" / f"{name}.wav")
    return {"train": [(names[0], "yesno", " ".join(["no"] * 8))]}


def fsdd(root: Path) -> Rows:
    for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
        sound(root / "recordings" / f"7_{speaker}_0.wav")
    return {
        "dev": [("7_george_0", "george", "seven")],
        "test": [("7_yweweler_0", "yweweler", "seven")],
    }


def an4(root: Path) -> Rows:
    lines = {"train": [], "test": []}
    for speaker in [f"f{number:03d}" for number in range(10)]:
        lines["train"].append(f"<s> ENTER SIX </s> (an1-{speaker}-b)\n")
        sound(root / f"an4/wav/an4_clstk/{speaker}/an1-{speaker}-b.sph")
    lines["test"].append("HELLO (cen7-mbob-b)\n")
    sound(root / "an4/wav/an4test_clstk/mbob/cen7-mbob-b.sph")
    for split, texts in lines.items():
        write(root / f"an4/etc/an4_{split}.transcription", "".join(texts))
    held = hold_out([f"f{number:03d}" for number in range(10)], test=0)
    dev = next(speaker for speaker, split in held.items() if split == "dev")
    return {"dev": [(f"an1-{dev}-b", dev, "enter six")], "test": [("cen7-mbob-b", "mbob", "hello")]}


def asterisk(root: Path) -> Rows:
    texts = "; Core sounds\n\nbeep: [a tone]\nsilence/1: \n" + "".join(
        f"dir/p{number}: Número {number}, por favor: ¡ya!\n" for number in range(10)
    )
    doc = root / "usr/share/doc/asterisk-core-sounds-es/core-sounds-es.txt.gz"
    doc.parent.mkdir(parents=True)
    doc.write_bytes(gzip.compress(texts.encode()))
    voice = root / "usr/share/asterisk/sounds/es_MX_f_Allison"
    for name in ("beep", "silence/1", *(f"dir/p{number}" for number in range(10))):
        sound(voice / f"{name}.g722")
    split = hold_out([f"dir/p{number}" for number in range(10)])
    rows: Rows = {}
    for number in range(10):
        key = f"dir/p{number}"
        rows.setdefault(split[key], []).append(
            (f"es-{key}", "es_MX_f_Allison", f"número {number} por favor ya")
        )
    return rows


def timit(root: Path) -> Rows:
    for folder, name in (
        ("TRAIN/DR1/FCJF0", "SI1027"), ("TRAIN/DR1/FCJF0", "SA1"), ("TEST/DR4/FADG0", "SX9"),
        ("TEST/DR1/MDAB0", "SX49"), ("TEST/DR1/FXXX0", "SX1"),
    ):  # fmt: skip
        sound(root / "TIMIT" / folder / f"{name}.WAV")
        write(root / "TIMIT" / folder / f"{name}.TXT", "0 1600 Even then, if she took one step.\n")
    text = "even then if she took one step"
    return {
        "train": [("fcjf0-si1027", "fcjf0", text)],
        "dev": [("fadg0-sx9", "fadg0", text)],
        "test": [("mdab0-sx49", "mdab0", text)],
    }


def speechocean762(root: Path) -> Rows:
    base = root / "speechocean762"
    for part, speakers in (("train", range(1, 6)), ("test", range(6, 8))):
        keys = [(f"{number:04d}0012", f"{number:04d}") for number in speakers]
        write(base / part / "text", "".join(f"{key}\tMARK IS HERE\n" for key, _ in keys))
        write(base / part / "utt2spk", "".join(f"{key} {speaker}\n" for key, speaker in keys))
        write(base / part / "wav.scp", "".join(f"{k}\tWAVE/SPEAKER{s}/{k}.WAV\n" for k, s in keys))
        for key, speaker in keys:
            sound(base / f"WAVE/SPEAKER{speaker}/{key}.WAV")
    return {"test": [("00060012", "0006", "mark is here"), ("00070012", "0007", "mark is here")]}


def librispeech(root: Path, part: str = "train-clean-100", speaker: int = 7) -> Rows:
    chapter = root / f"LibriSpeech/{part}/{speaker}/9"
    write(chapter / f"{speaker}-9.trans.txt", f"{speaker}-9-0000 GO DO\n")
    sound(chapter / f"{speaker}-9-0000.flac")
    return {part.partition("-")[0]: [(f"{speaker}-9-0000", str(speaker), "go do")]}


def whole_librispeech(root: Path) -> Rows:
    parts = ("train-clean-100", "train-other-500", "dev-clean", "test-other")
    rows = [librispeech(root, part, number) for number, part in enumerate(parts)]
    return {"train": [*rows[0]["train"], *rows[1]["train"]], "dev": rows[2]["dev"], "test": rows[3]["test"]}


def mini_librispeech(root: Path) -> Rows:
    librispeech(root, "train-clean-5", 1)
    for speaker in range(10, 19):
        librispeech(root, "dev-clean-2", speaker)
    return {"train": [("1-9-0000", "1", "go do")], "test": [("18-9-0000", "18", "go do")]}


def cmu_arctic(root: Path) -> Rows:
    for speaker in ("slt", "bdl"):
        base = root / f"cmu_us_{speaker}_arctic"
        prompts = [f'( arctic_{n} "Author of the \\"trail\\", etc." )\n' for n in ("a0001", "b0450", "b0539")]
        write(base / "etc/txt.done.data", "".join(prompts))
        for name in ("a0001", "b0450", "b0539"):
            sound(base / f"wav/arctic_{name}.wav")
    return {
        split: [(f"{s}-arctic_{n}", s, "author of the trail etc") for s in ("bdl", "slt")]
        for split, n in (("train", "a0001"), ("dev", "b0450"), ("test", "b0539"))
    }


def ljspeech(root: Path) -> Rows:
    lines = [f"LJ001-{n:04d}|In 1{n} b.c. “he”|In one {n} B.C. “he”\n" for n in range(10)]
    write(root / "LJSpeech-1.1/metadata.csv", "".join(lines))
    for n in range(10):
        sound(root / f"LJSpeech-1.1/wavs/LJ001-{n:04d}.wav")
    test = next(
        key for key, part in hold_out([f"LJ001-{n:04d}" for n in range(10)]).items() if part == "test"
    )
    return {"test": [(test, "LJ", f"in one {int(test[-4:])} bc he")]}


def speech_commands(root: Path) -> Rows:
    # One each of train, dev and test, by the hash of the corpus.
    names = ("00000001_nohash_0", "00000000_nohash_1", "00000002_nohash_1")
    for word in ("yes", "no"):
        for name in names:
            sound(root / "speech_commands_v0.02" / word / f"{name}.wav")
        sound(root / "speech_commands_v0.02/_background_noise_/pink_noise.wav")
    return {
        split: [(f"{word}/{name}", name.partition("_")[0], word) for word in ("no", "yes")]
        for split, name in zip(("train", "dev", "test"), names, strict=True)
    }


def vctk(root: Path) -> Rows:
    base = root / "VCTK-Corpus-0.92"
    for n in range(5):
        write(base / f"txt/p{n}/p{n}_001.txt", "Please call Stella.\n")
        for microphone in (1, 2):
            sound(base / f"wav48_silence_trimmed/p{n}/p{n}_001_mic{microphone}.flac")
    split = hold_out([f"p{n}" for n in range(5)])
    test = next(speaker for speaker, part in split.items() if part == "test")
    return {"test": [(f"{test}_001", test, "please call stella")]}


def wsj(root: Path) -> Rows:
    disks = {"train/tr_s_wv1": "11-13.1/wsj0", "test/nvp/si_et_20": "11-13.1/wsj0"}
    for name, disk in disks.items():
        key = "01ic0201" if name.startswith("train") else "440c0201"
        end = ".wv1" if name.startswith("train") else ""
        text = f"; a comment\n11_1_1:wsj0/set/{key[:3]}/{key}{end}\n"
        write(root / disk / f"doc/indices/{name}.ndx", text)
    write(root / "13-34.1/wsj1/doc/indices/si_tr_s.ndx", "13_1_1:wsj1/si_tr_s/46u/46uc0301.wv1\n")
    write(root / "13-34.1/wsj1/doc/indices/h1_p0.ndx", "13_16_1:wsj1/si_dt_20/4k0/4k0c0301.wv1\n")
    marked = "The %PERCENT [loud_breath] <and> ~ it's ,COMMA {rose\\} . ({})\n"
    for key in ("01ic0201", "440c0201", "46uc0301", "4k0c0301"):
        sound(root / f"11-1.1/wsj0/set/{key[:3]}/{key}.wv1")
        text = marked.replace("({})", f"({key})").replace("{rose\\}", "rose\\,")
        write(root / f"11-4.1/wsj0/transcrp/dots/{key[:3]}/{key[:6]}00.dot", text)
    (root / "11-4.1" / "back").symlink_to(root, target_is_directory=True)
    text = "the percent and it's comma rose"
    return {
        "train": [("01ic0201", "01i", text), ("46uc0301", "46u", text)],
        "dev": [("4k0c0301", "4k0", text)],
        "test": [("440c0201", "440", text)],
    }


def voxforge(root: Path) -> Rows:
    names = [*(f"ann{n}-20120412-hge" for n in range(4)), "anonymous-20080425-abc"]
    for name in names:
        write(root / name / "etc/PROMPTS", f"{name}/mfc/a0405 IT SEEMED THE ORDER\n")
        sound(root / name / "wav/a0405.wav")
    split = hold_out([*(f"ann{n}" for n in range(4)), names[-1]])
    row = (f"{names[-1]}-a0405", names[-1], "it seemed the order")
    return {split[names[-1]]: [row]}


def tedlium(root: Path, name: str = "TEDLIUM_release2", below: str = "") -> Rows:
    for split in ("train", "dev", "test"):
        talk = f"Ann_{split}"
        sound(root / f"{name}/{below}{split}/sph/{talk}.sph", 1.0)
        lines = (
            f"{talk} 1 {talk} 0.1 0.5 <o,f0,female> and it 's to(2) [NOISE] {{BREATH}} <unk> you 're\n"
            f"{talk} 1 inter_segment_gap 0.5 0.6 <o,,unknown> ignore_time_segment_in_scoring\n"
        )
        write(root / f"{name}/{below}{split}/stm/{talk}.stm", lines)
    return {
        split: [(f"Ann_{split}-0000010-0000050", f"Ann_{split}", "and it's to you're")]
        for split in ("train", "dev", "test")
    }


def tedlium3(root: Path) -> Rows:
    return tedlium(root, "TEDLIUM_release-3", "legacy/")


def libritts(root: Path) -> Rows:
    rows: Rows = {}
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        chapter = root / f"LibriTTS/{part}/84/121123"
        key = f"84_121123_00000{len(rows)}_000000"
        write(chapter / "84_121123.trans.tsv", f"{key}\tMr. Villefort, rose.\tMister Villefort, rose.\n")
        sound(chapter / f"{key}.wav")
        rows[part.partition("-")[0]] = [(key, "84", "mister villefort rose")]
    return rows


def fleurs(root: Path) -> Rows:
    rows: Rows = {}
    for n, split in enumerate(("train", "dev", "test")):
        line = f'903\t1003{n}.wav\tWhat "is"?\twhat is\tw h a t |\t1600\tFEMALE\n'
        write(root / f"fleurs/en_us/{split}.tsv", line)
        sound(root / f"fleurs/en_us/audio/{split}/1003{n}.wav")
        rows[split] = [(f"1003{n}", "", "what is")]
    return rows


def common_voice(root: Path) -> Rows:
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
    base = root / "cv-corpus-20.0-2024-12-06/de"
    delta = root / "cv-corpus-21.0-delta-2025-03-14/de"
    for split, n in (("train", 1), ("dev", 2), ("test", 3)):
        write(
            base / f"{split}.tsv", f"{header}speaker{n}\tcommon_voice_de_{n}.mp3\tx\tGrüß Gott, „Welt“!\t2\n"
        )
        sound(base / f"clips/common_voice_de_{n}.mp3")
    rows = "".join(f"speaker{n}\tcommon_voice_de_9{n}.mp3\tx\tNeu.\t2\n" for n in (1, 3))
    write(delta / "validated.tsv", header + rows)
    for n in (1, 3):
        sound(delta / f"clips/common_voice_de_9{n}.mp3")
    text = "grüß gott welt"
    return {
        "train": [("common_voice_de_1", "speaker1", text), ("common_voice_de_91", "speaker1", "neu")],
        "dev": [("common_voice_de_2", "speaker2", text)],
        "test": [("common_voice_de_3", "speaker3", text)],
    }


def mls(root: Path) -> Rows:
    rows: Rows = {}
    for n, split in enumerate(("train", "dev", "test")):
        key = f"689{n}_10049_000000"
        write(root / f"mls_polish_opus/{split}/transcripts.txt", f"{key}\tżona\n")
        sound(root / f"mls_polish_opus/{split}/audio/689{n}/10049/{key}.opus")
        rows[split] = [(key, f"689{n}", "żona")]
    return rows


LOOK_ALIKES: dict[str, Callable[[Path], Rows]] = {
    "yesno": yesno, "fsdd": fsdd, "an4": an4, "asterisk": asterisk, "timit": timit,
    "speechocean762": speechocean762, "mini_librispeech": mini_librispeech, "cmu_arctic": cmu_arctic,
    "ljspeech": ljspeech, "speech_commands": speech_commands, "vctk": vctk, "wsj": wsj,
    "voxforge": voxforge, "tedlium2": tedlium, "tedlium3": tedlium3, "libritts": libritts,
    "librispeech": whole_librispeech, "fleurs": fleurs, "common_voice": common_voice, "mls": mls,
}  # fmt: skip
"""What makes each corpus in a folder; it returns utterances of each split, not all of them."""

# What a whole copy leaves out, by its reason.
LEFT_OUT = {
    "asterisk": {"a sound or silence, no speech": 2},
    "timit": {"a sentence that all speakers read": 1, "a test speaker outside of dev and the core test": 1},
    "tedlium2": {"to be ignored, says the corpus": 3},
    "tedlium3": {"to be ignored, says the corpus": 3},
    "wsj": {"a link that leads back into a folder around it": 1},
    "common_voice": {"its speaker is in test": 1},
}
