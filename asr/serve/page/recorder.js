// The microphone's samples as 16-bit PCM, a tenth of a second at a time.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
    this.peak = 0;
    this.port.onmessage = () => {
      this.send();
      this.port.postMessage({ done: true });
    };
  }

  send() {
    const pcm = this.samples.slice(0, this.count);
    this.port.postMessage({ pcm, peak: this.peak }, [pcm.buffer]);
    this.count = 0;
    this.peak = 0;
  }

  process([channels]) {
    for (const value of channels[0] ?? []) {
      this.samples[this.count++] = Math.max(-1, Math.min(1, value)) * 32767;
      this.peak = Math.max(this.peak, Math.abs(value));
      if (this.count === this.samples.length) this.send();
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
