"""FLEURS: the same 2,009 sentences of Wikipedia, read in 102 languages, about 12 hours each.

A. Conneau and others, "FLEURS: few-shot learning evaluation of universal representations of speech", 2022
(arXiv 2205.12446); 16 kHz WAV, two or three people a sentence. Licence: CC BY 4.0. A language is a corpus of
its own.

    en_us/train.tsv                  id, file, as printed, transcript, characters, samples, gender; no header
    en_us/audio/train/1003….wav …    dev and test likewise

Split: that of the corpus. Speakers are not named; those of train are others than those of dev and test.

Source: the data set's page on Hugging Face (google/fleurs: files, licence), lhotse/recipes/fleurs.py
(languages, columns). Neither sizes nor checksums are published there: unverified.
"""

from collections.abc import Sequence
from pathlib import Path

from asr.corpora.corpus import Collector, Corpus, Reading, audio_by_stem, find_folder
from asr.corpora.download import Archive
from asr.errors import SettingsError
from asr.files import read_lines

__all__ = ["CORPUS"]

_NAMES = """
af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk
de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu
hy_am id_id ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd
lo_la lt_lt luo_ke lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr
om_et or_in pa_in pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in
tg_tj th_th tr_tr uk_ua umb_ao ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za
"""
_LANGUAGES = _NAMES.split()
_SPLITS = ("train", "dev", "test")
_URL = "https://huggingface.co/datasets/google/fleurs/resolve/main/data"


def _archives(language: str) -> tuple[Archive, ...]:
    lists = [
        Archive(
            name=f"{split}.tsv",
            unpacks_to="",
            folder=f"fleurs/{language}",
            url=f"{_URL}/{language}/{split}.tsv",
            licence="CC BY 4.0",
        )
        for split in _SPLITS
    ]
    audio = [
        Archive(
            name=f"{split}.tar.gz",
            unpacks_to=split,
            folder=f"fleurs/{language}/audio",
            url=f"{_URL}/{language}/audio/{split}.tar.gz",
            licence="CC BY 4.0",
        )
        for split in _SPLITS
    ]
    return (*lists, *audio)


def _read(root: Path | None, parts: Sequence[str]) -> Reading:
    root = root or Path()
    needed = [f"{split}.tsv" for split in _SPLITS]
    languages = [
        path.relative_to(root)
        for base in (root, root / "data", root / "fleurs")
        for path in (base / language for language in parts or _LANGUAGES)
        if path.is_dir()
    ]
    if len(languages) > 1 and not (root / needed[0]).exists():
        names = ", ".join(path.name for path in languages)
        raise SettingsError(f"{root}: holds {names}. Expected one language. Name it as --data.parts.")
    folder = find_folder(root, CORPUS.title, *needed, inside=[str(path) for path in languages])
    found = Collector(CORPUS.title)
    for split in _SPLITS:
        path = folder / f"{split}.tsv"
        texts: dict[str, str] = {}
        for number, line in enumerate(read_lines(path), start=1):
            fields = line.split("\t")
            if len(fields) >= 4:
                texts[Path(fields[1]).stem] = fields[3]
            elif line.strip():
                found.leave_out(f"{path} line {number}", "less than four fields with tabs between them")
        audio = audio_by_stem(folder / "audio" / split) or audio_by_stem(folder / split)
        found.pair(texts, audio, split=split)
    return found.finish(folder.name)


CORPUS = Corpus(
    name="fleurs",
    title="FLEURS",
    hours=1200,
    speakers=None,
    languages="102 languages",
    licence="CC BY 4.0",
    source="https://arxiv.org/abs/2205.12446",
    read=_read,
    parts={language: _archives(language) for language in _LANGUAGES},
    one_part=True,
    normalizer="words",
)
