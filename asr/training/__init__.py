"""Manifests and a model in, a better model out.

Where to read, in this order: `recogniser.train_recogniser` assembles a run, `run.start.Run` is what all runs
have in common, `trainer.Trainer._update` is one update (forward, backward, reduce, clip, step, report), and
`tasks.speech.SpeechTask` is what is trained. The rest serves these four: `update` and `data_parallel` the
update, `validation` and `averaging` the choice of the best weights, the folder `run` the stopping, the
resuming and the faults, `metrics` and `diagnostics` the reports. One wav on its way in: `asr.batching`.

Each kind of network has a file that assembles its run (settings, data, model) and a task (loss, validation):

    recogniser    tasks.speech            recordings -> text
    pronouncer    tasks.sequence_pairs    symbols -> other symbols, here letters -> phones
    charrnn       tasks.charrnn           characters -> the next one
    wordrnn       tasks.wordrnn           words -> the next one

In this folder, a word has one meaning:

    update    one step of the optimiser; its number counts from 1, and `TrainingState.update` were made so far
    batch     what is computed at once; `accumulate` batches make an update
    shard     of a batch: what one process computes at once
    part      of a batch: a half, where the whole runs out of memory
    output    of a task's forward pass: a loss for each row, in nats, and statistics
    loss      nats; of an update the mean per token, over all processes
"""
