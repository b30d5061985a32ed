"""The loader alone: how many seconds of audio a second it makes into batches, with nothing trained."""

import time

from asr.device import usable_cores
from benchmarks.gpu.part import Part
from benchmarks.gpu.speech import cache_folder, fill_cache, load_speech, make_batches

WORKERS = (0, 4, 8, 15)
BATCH_S = 400.0


def run(part: Part) -> None:
    """Measure with so many loader processes, with the features in the cache and with audio to decode."""
    utterances, _ = load_speech(part)
    quick = part.settings.quick
    cached = fill_cache(part, utterances, seconds=max(part.left_s / 3, 1.0))
    workers = (0, 1) if quick else tuple(count for count in WORKERS if count <= max(4, usable_cores()))
    cases = [(count, cache) for count in workers for cache in (True, False)]
    for number, (count, cache) in enumerate(cases):
        seconds = 0.5 if quick else part.left_s / (len(cases) - number) * 0.7
        if seconds <= 0:
            return
        batches = make_batches(
            part, cached, 20.0 if quick else BATCH_S, cache_folder(part) if cache else None, count
        )
        began = time.perf_counter()
        audio_s, first_s, epoch = 0.0, 0.0, 0
        while time.perf_counter() - began < seconds:
            epoch += 1
            for batch in batches.load(batches.plan(epoch)):
                first_s = first_s or time.perf_counter() - began
                audio_s += batch.global_seconds
                if time.perf_counter() - began > seconds:
                    break
        rate = audio_s / (time.perf_counter() - began)
        part.row(
            "loading",
            workers=count,
            cached=cache,
            audio_s_per_s=round(rate),
            first_batch_s=round(first_s, 2),
            epochs=epoch,
        )
