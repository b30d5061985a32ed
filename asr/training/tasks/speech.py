"""The speech task: CTC or CTC-CRF, with attention or not, validation by WER, replay of bad updates."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr.batching.batches import Batch, Batches
from asr.batching.sampler import PlannedBatch
from asr.decoding.greedy import BestPaths
from asr.decoding.hypothesis import output_unit
from asr.device import HostCopy, autocast
from asr.errors import DataError
from asr.model.acoustic import AcousticModel
from asr.model.encoder import step_count
from asr.model.loss.consistency import consistency_loss
from asr.model.loss.crf import crf_loss
from asr.model.loss.ctc import blank_steps, ctc_loss, deterministic_ctc_loss
from asr.model.saved import load_model, save_model
from asr.model.shipped import find_model
from asr.model.widen import can_widen, widened_weights
from asr.scoring.wer import RATE_NAMES, CountedUnit, score
from asr.training.distributed import Process
from asr.training.run.faults import load_bad_update
from asr.training.tasks.blank_plateau import BlankPlateau
from asr.training.tasks.dev_decoding import DevDecoder, DevOutput
from asr.training.tasks.interface import TaskOutput, Throughput
from asr.training.update import delayed_by_one

log = logging.getLogger("asr")

LossFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Arguments and result are those of `ctc_loss`."""


@dataclass(frozen=True)
class SpeechValidation:
    """How a model does on the dev set, decoded greedily, and on a part of it with a language model."""

    wer: float  # percent; of characters or phones where these are what was counted
    cer: float  # percent
    loss: float  # nats per token
    blank_share: float  # of all encoder steps, in [0, 1]
    examples: tuple[tuple[str, str], ...]  # a few (reference, hypothesis) pairs
    unit: CountedUnit = "words"  # what was counted
    attention_loss: float | None = None  # nats per token, of the attention decoder alone, if there is one
    lm_wer: float | None = None  # percent, of words, of the part that was decoded with a language model

    @property
    def score(self) -> float:
        """The best epoch is the one with the lowest WER, with the language model where there is one."""
        return self.wer if self.lm_wer is None else self.lm_wer

    def headline(self) -> str:
        """The numbers for the epoch's log line."""
        rate = f"{RATE_NAMES[self.unit]} {self.wer:.2f}%"
        rates = f"dev {rate}" if self.lm_wer is None else f"dev WER {self.lm_wer:.2f}%  greedy {rate}"
        characters = f"  CER {self.cer:.2f}%" if self.unit == "words" else ""
        attention = "" if self.attention_loss is None else f"  attention loss {self.attention_loss:.3f}"
        return f"dev loss {self.loss:.3f}  {rates}{characters}{attention}  blank {self.blank_share:.0%}"

    def row(self) -> dict[str, Any]:
        """The same as plain values, with examples of what was recognised."""
        rates = {f"dev_{RATE_NAMES[self.unit].lower()}": self.wer}
        if self.unit == "words":
            rates["dev_cer"] = self.cer
        if self.lm_wer is not None:
            rates["dev_lm_wer"] = self.lm_wer
        if self.attention_loss is not None:
            rates["dev_attention_loss"] = self.attention_loss
        return {"dev_loss": self.loss, **rates, "blank_share": self.blank_share, "examples": self.examples}


class SpeechTask:
    """An acoustic model that is trained on one set of utterances and selected by its WER on another.

    Args:
        model: on its device.
        train: batches of the training set.
        dev: batches of the dev set; never augmented.
        deterministic: use the CTC loss whose gradient has the same bits in every run on a GPU.
        dev_decoder: decodes a part of the dev set with a language model, by whose WER the model is selected;
            None: by its greedy output.
    """

    score_format = "{:.2f}%"
    throughput = Throughput("audio_s_per_s", "audio {:.0f} s/s")
    replay_module: str | None = "asr.training.tasks.speech"
    memory_advice = "Leave it out of the manifest or cut it, or make the model smaller."

    def __init__(
        self,
        model: AcousticModel,
        train: Batches,
        dev: Batches,
        deterministic: bool = False,
        dev_decoder: DevDecoder | None = None,
    ) -> None:
        self.loss = loss_of(model, deterministic_ctc_loss if deterministic else ctc_loss)
        self.net, self.train_batches, self.dev_batches = model, train, dev
        self.dev_decoder = dev_decoder
        unit = "words" if dev_decoder else output_unit(model.settings.tokenizer)
        self.score_name = f"dev {RATE_NAMES[unit]}"
        self.blank_plateau = BlankPlateau()

    def submodules(self) -> dict[str, nn.Module]:
        """Parts of the net by the names that --train.freeze takes."""
        encoder = self.net.encoder
        stack = encoder.recurrent
        layers = {
            f"recurrent.{number}": nn.ModuleList(layer)
            for number, layer in enumerate(zip(stack.norms, stack.layers, stack.bottlenecks, strict=True))
        }
        decoder = self.net.attention_decoder
        decoders = {} if decoder is None else {"attention-decoder": decoder}
        return {"front": encoder.front, "recurrent": stack, **layers, "output": encoder.output, **decoders}

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved recogniser, repeated to our width; no output layer of another alphabet.

        The denominator of CTC-CRF is always that of this run's transcripts.
        """
        other = load_model(find_model(path).path)
        weights: dict[str, Tensor | None] = dict(other.state_dict())
        encoder = self.net.encoder
        if can_widen(other.encoder, encoder):
            old, new = other.encoder.config.recurrent().width, encoder.config.recurrent().width
            log.info("warm start: units are repeated, from %d to %d per layer and direction", old, new)
            wide = widened_weights(other.encoder, new, torch.Generator().manual_seed(0))
            weights |= {f"encoder.{name}": tensor for name, tensor in wide.items()}
        theirs, ours = other.settings.tokenizer, self.net.settings.tokenizer
        # Not the tokenizers themselves: those of phones also hold the words of their transcripts.
        if (theirs.units, theirs.symbols) != (ours.units, ours.symbols):
            log.info(
                "warm start: the output layer is new: %d %s here, %d %s in %s",
                len(ours.symbols), ours.units, len(theirs.symbols), theirs.units, path,
            )  # fmt: skip
            tokens = ("encoder.output.", "attention_decoder.target_embedding.", "attention_decoder.output.")
            weights |= {name: None for name in weights if name.startswith(tokens)}
        here = self.net.state_dict()
        return weights | {name: here[name] for name in here if name.startswith("denominator.")}

    def plan(self, epoch: int) -> Sequence[PlannedBatch]:
        """The batches of an epoch, counted from 1, in their order."""
        return self.train_batches.plan(epoch)

    def load(self, plan: Sequence[PlannedBatch]) -> Iterator[Batch]:
        """The batches of a part of a plan, in the host's memory."""
        return self.train_batches.load(plan)

    def forward(self, batch: Batch, precision: torch.dtype) -> TaskOutput:
        """The losses of a batch, (batch,) nats, and its share of blanks; see `speech_losses`."""
        return speech_losses(self.net, batch, precision, self.loss)

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        """Watch CTC's blank plateau."""
        self.blank_plateau.observe(number, statistics["blank"])

    def validate(self, process: Process, precision: torch.dtype) -> SpeechValidation:
        """Score the model on the dev set."""
        return validate(self.net, self.dev_batches, process, precision, self.dev_decoder)

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the model with these weights."""
        save_model(path, self.net, provenance, weights)

    def state(self) -> dict[str, Any]:
        """Whether the blank plateau is over."""
        return {"emits": self.blank_plateau.emits}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.blank_plateau.emits = state["emits"]


def loss_of(model: AcousticModel, ctc: LossFunction = ctc_loss) -> LossFunction:
    """The loss that a model is trained with by its settings.

    Args:
        model: on its device.
        ctc: `ctc_loss`, or one that gives the same numbers in another way.
    """
    if model.denominator is None:
        return ctc
    weight = model.settings.encoder.loss.ctc_weight
    return partial(crf_loss, denominator_lm=model.denominator, ctc_weight=weight, ctc=ctc)


def speech_losses(
    model: AcousticModel, batch: Batch, precision: torch.dtype, loss: LossFunction | None = None
) -> TaskOutput:
    """The loss of each utterance, (batch,) nats, and under "blank" how many of its steps are blank.

    Nothing in here reads from the device (torch's CTC may wait).

    Args:
        model: in any mode.
        batch: in the host's memory.
        precision: number format of the encoder's arithmetic.
        loss: of `loss_of`, to which it defaults.
    """
    weight = batch.consistency_weight
    output = _forward(model, batch.both_views() if weight else batch, precision, loss or loss_of(model))
    losses = output.losses
    if weight:
        steps = output.step_lengths[: len(batch.ids)]
        losses = sum(losses.chunk(2)) / 2 + weight * consistency_loss(output.log_probs, steps)
    blanks = blank_steps(output.log_probs.detach(), output.step_lengths)
    return TaskOutput(losses, {"blank": (blanks, output.step_lengths.sum())})


class _BatchOutput(NamedTuple):
    """What a model makes of a batch."""

    log_probs: Tensor  # (batch, steps, vocab) nats
    step_lengths: Tensor  # (batch,) int64
    losses: Tensor  # (batch,) nats
    attention_losses: Tensor  # (batch,) nats, of the attention decoder alone, in `losses` too; 0 without one


def _forward(model: AcousticModel, batch: Batch, precision: torch.dtype, loss: LossFunction) -> _BatchOutput:
    """The forward pass, from features to losses; arguments as of `speech_losses`."""
    settings, device, decoder = model.settings, model.device, model.attention_decoder
    on_device = batch.to(device)
    features = on_device.features(settings.features)
    with autocast(precision, device):
        log_probs, step_lengths, encoded = model(features, on_device.frame_lengths, on_device.masks)
    # The same lengths again: torch's loss takes them in the host's memory, and would wait for the device.
    host_step_lengths = step_count(batch.frame_lengths, settings.encoder.subsampling)
    losses = loss(log_probs, host_step_lengths, on_device.tokens, batch.token_lengths)
    if decoder is None:
        return _BatchOutput(log_probs, step_lengths, losses, torch.zeros_like(losses))
    with autocast(precision, device):
        source = decoder.source(encoded, step_lengths)
        attention_losses = decoder.target_losses(source, on_device.tokens, on_device.token_lengths)
    weight = settings.encoder.decoder.attention_loss_weight
    # Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition", II-C
    losses = (1 - weight) * losses + weight * attention_losses
    return _BatchOutput(log_probs, step_lengths, losses, attention_losses.detach())


def replay(path: Path | str, device: str = "cpu") -> dict[str, float]:
    """Repeat an update whose loss or gradient was not finite, with the same weights, batch and draws.

    Args:
        path: bad_update_N.pt of a run folder; the model saved with it is read too.
        device: where to repeat it, in float32.

    Returns:
        The loss of each utterance in nats, and under "gradient norm" that of the update.

    Raises:
        ModelError: a file is missing, damaged, or not of a bad update.
    """
    record = load_bad_update(Path(path))
    model = load_model(Path(path).with_name(record["model"]), device).train()
    torch.manual_seed(record["seed"])
    results: dict[str, float] = {}
    for fields in record["batches"]:
        batch = Batch.from_fields(fields)
        losses = speech_losses(model, batch, torch.float32).losses
        (losses.sum() / record["tokens"]).backward()
        results |= dict(zip(batch.ids, losses.tolist(), strict=True))
    norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    return {**results, "gradient norm": float(norm)}


@torch.inference_mode()
def validate(
    model: AcousticModel,
    dev: Batches,
    process: Process,
    precision: torch.dtype = torch.float32,
    decoder: DevDecoder | None = None,
) -> SpeechValidation:
    """Score a model on the dev set; the processes share the work and all get the result.

    Args:
        model: in any mode; it is left in training mode.
        dev: unaugmented batches.
        process: this process.
        precision: number format of the encoder's arithmetic, as in training.
        decoder: decodes a part with a language model, or None.

    Raises:
        DataError: the dev set is empty.
    """
    model.eval()
    parts = process.gather(_score_part(model, dev, precision, decoder))
    model.train()
    rows = [row for part in parts for row in part.greedy]
    if not rows:
        raise DataError("the dev set is empty. Expected at least one utterance to choose the best epoch by.")
    # Both sides are normalised already.
    ids, references, recognised = zip(*rows, strict=True)
    result = score(references, recognised, ids, "verbatim", output_unit(model.settings.tokenizer))
    lm_wer = None
    if decoder is not None:
        names, texts, with_lm = zip(*(row for part in parts for row in part.with_lm), strict=True)
        lm_wer = 100 * score(texts, with_lm, names, "verbatim", "words").words.rate
    tokens = max(sum(len(example.tokens) for example in dev.examples), 1)
    return SpeechValidation(
        wer=100 * result.words.rate,
        cer=100 * result.characters.rate,
        loss=sum(part.loss for part in parts) / tokens,
        blank_share=sum(part.blank_steps for part in parts) / sum(part.steps for part in parts),
        examples=tuple(zip(references[:3], recognised[:3], strict=True)),
        unit=result.unit,
        attention_loss=(
            sum(part.attention_loss for part in parts) / tokens if model.attention_decoder else None
        ),
        lm_wer=lm_wer,
    )


_Row = tuple[str, str, str]  # an utterance's id, its reference, what was recognised


class _ScoredPart(NamedTuple):
    """What a process has found in its part of the dev set."""

    greedy: list[_Row]
    loss: float  # nats, over all tokens
    blank_steps: float
    steps: float
    attention_loss: float  # nats, of the attention decoder alone; 0 without one
    with_lm: list[_Row]  # of the utterances that are decoded with a language model


def _score_part(
    model: AcousticModel, dev: Batches, precision: torch.dtype, decoder: DevDecoder | None
) -> _ScoredPart:
    """Score this process's batches; each is decoded while the device computes the next."""
    tokenizer = model.settings.tokenizer
    texts = {example.utterance.id: example.text for example in dev.examples}
    greedy: list[_Row] = []
    with_lm: list[_Row] = []
    totals = [0.0, 0.0, 0.0, 0.0]
    scored = (_score_batch(model, batch, precision, decoder) for batch in dev.load(dev.plan(epoch=0)))
    for batch in delayed_by_one(scored):
        sums, packed, log_probs = batch.tensors.get()
        totals = [total + value for total, value in zip(totals, sums.tolist(), strict=True)]
        hypotheses = replace(batch.paths, packed=packed).hypotheses(tokenizer, model.step_s)
        greedy += [
            (name, texts[name], hypothesis.text)
            for name, hypothesis in zip(batch.ids, hypotheses, strict=True)
        ]
        if decoder is not None and batch.output is not None and log_probs is not None:
            with_lm += decoder.decode(replace(batch.output, log_probs=log_probs))
    loss, blank_steps, steps, attention_loss = totals
    return _ScoredPart(greedy, loss, blank_steps, steps, attention_loss, with_lm)


class _ScoredBatch(NamedTuple):
    """The results of a batch of the dev set, on their way to the host's memory."""

    ids: tuple[str, ...]
    paths: BestPaths
    output: DevOutput | None  # what is decoded with a language model
    # (4,) float64 sums of the losses in nats, of steps that are blank, of steps, and of the losses of the
    # attention decoder; the tensor of the best paths; log-probabilities of what is decoded
    tensors: HostCopy[tuple[Tensor, Tensor, Tensor | None]]


def _score_batch(
    model: AcousticModel, batch: Batch, precision: torch.dtype, decoder: DevDecoder | None
) -> _ScoredBatch:
    """Start to score a batch, without waiting for the device."""
    log_probs, step_lengths, losses, attention_losses = _forward(model, batch, precision, loss_of(model))
    totals = losses.sum(), blank_steps(log_probs, step_lengths), step_lengths.sum(), attention_losses.sum()
    sums = torch.stack([total.double() for total in totals])
    paths = BestPaths.begin(log_probs, step_lengths, model.settings.tokenizer)
    chosen = decoder.select(batch, log_probs) if decoder else None
    tensors = HostCopy((sums, paths.packed, chosen.log_probs if chosen else None))
    return _ScoredBatch(batch.ids, paths, chosen, tensors)
