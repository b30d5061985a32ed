"""pyctcdecode in a separate environment; decoding.py starts this with --pyctcdecode PYTHON.

Its pins (numpy below 2) keep it out of the environment of the others. Nothing of asr is imported here.
Arguments: the ARPA file, the folder of the emissions (PART.npy, concatenated, and PART-lengths.npy). One JSON
object per line in, one out.
"""

import json
import multiprocessing
import resource
import sys
import time
import warnings

import numpy as np
from pyctcdecode import build_ctcdecoder


def main(arpa: str, folder: str) -> None:
    """Answer until the input ends."""
    words = sys.stdin.readline()
    decoder = build_ctcdecoder(json.loads(words)["labels"], arpa)
    parts: dict[str, list[np.ndarray]] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        part = asked["part"]
        if part not in parts:
            ends = np.cumsum(np.load(f"{folder}/{part}-lengths.npy"))[:-1]
            parts[part] = np.split(np.load(f"{folder}/{part}.npy"), ends)
        decoder.reset_params(alpha=asked["lm_weight"], beta=asked["word_bonus"])
        began = clocks = (0.0, 0.0)
        if asked["processes"] == 1:
            began = time.perf_counter(), time.process_time()
            texts = [decoder.decode(logits, beam_width=asked["beam"]) for logits in parts[part]]
            clocks = time.perf_counter(), time.process_time()
        else:
            with multiprocessing.get_context("fork").Pool(asked["processes"]) as pool:
                pool.map(len, ["ready"] * asked["processes"])
                began = time.perf_counter(), 0.0
                texts = decoder.decode_batch(pool, parts[part], beam_width=asked["beam"])
                clocks = time.perf_counter(), 0.0
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                pool.close()
                pool.join()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            clocks = clocks[0], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        answer = {"texts": texts, "wall": clocks[0] - began[0], "cpu": clocks[1] - began[1]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], sys.argv[2])
