// The page: recordings are sent one after the other, the microphone as a stream; both answer with the same
// objects: {final, text, stable, words}, {done, srt, html, duration} or {error}.

const $ = (id) => document.getElementById(id);
let limits = null;
let playing = null; // the transcript whose sound is heard

// Scripts without spaces between words, of which each character comes as a word.
const UNSPACED = ["Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"].map((script) => `\\p{Script=${script}}`).join("");
const INSIDE = new RegExp(`(?<=[${UNSPACED}]) (?=[${UNSPACED}])`, "gu");
const joined = (words) => words.map((word) => word.word).join(" ").replace(INSIDE, "");

const UNREACHABLE = "The service cannot be reached. Is it still running?";
const CUT_OFF = "The service has stopped before the transcript was complete.";

fetch("about/limits").then((answer) => answer.json()).then((about) => {
  limits = about;
  $("about").textContent = `Model: ${about.model}. Recordings are not kept.`;
}).catch(() => showProblem(UNREACHABLE));

function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

class Transcript {
  constructor(name, status) {
    this.node = $("transcript").content.cloneNode(true).firstElementChild;
    this.part = (selector) => this.node.querySelector(selector);
    this.part("h2").textContent = name;
    this.name = name;
    this.words = [];
    this.audio = null;
    this.ended = false; // with a transcript or an error
    this.partial = document.createElement("span");
    this.part(".text").append(this.partial);
    this.status(status);
    this.part(".play").onclick = () => (this.audio.paused ? this.play(0, Infinity) : this.audio.pause());
    this.part(".copy").onclick = async () => {
      await navigator.clipboard.writeText(joined(this.words));
      this.part(".copy").textContent = "Copied";
      setTimeout(() => (this.part(".copy").textContent = "Copy"), 1500);
    };
    $("results").prepend(this.node);
  }

  status(text, wrong = false) {
    this.part(".status").textContent = text;
    this.part(".status").classList.toggle("wrong", wrong);
  }

  fail(text) {
    this.ended = true;
    this.status(text, true);
  }

  take(event) {
    if (event.error) return this.fail(event.error);
    if (event.done) return this.finish(event);
    if (event.final) {
      this.partial.replaceChildren();
      for (const word of event.words) this.addWord(word);
      return;
    }
    const stable = document.createElement("span");
    stable.className = "stable";
    stable.textContent = event.stable;
    const rest = document.createElement("span");
    rest.className = "partial";
    rest.textContent = event.text.slice(event.stable.length);
    this.partial.replaceChildren(stable, rest);
  }

  addWord(word) {
    const node = document.createElement("span");
    node.className = word.confidence < 0.5 ? "word unsure" : "word";
    node.textContent = word.word;
    node.tabIndex = this.words.length ? -1 : 0; // one stop of the tab key a transcript: arrows lead on
    node.role = "button";
    node.title = `${clock(word.start)}, confidence ${Math.round(100 * word.confidence)}%`;
    // A little before and after: the times are those of the evidence.
    const hear = () => this.play(word.start - 0.15, word.end + 0.15);
    node.onclick = () => {
      this.focus(node);
      hear();
    };
    node.onkeydown = (key) => {
      const index = this.words.findIndex((one) => one.node === node);
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: this.words.length - 1 }[key.key];
      if (to === undefined && key.key !== "Enter" && key.key !== " ") return;
      key.preventDefault();
      if (to === undefined) hear();
      else this.focus(this.words[to]?.node ?? node);
    };
    const before = this.words.at(-1);
    if (before && joined([before, word]).includes(" ")) this.partial.before(" ");
    this.words.push({ ...word, node });
    this.partial.before(node);
  }

  focus(node) {
    for (const word of this.words) word.node.tabIndex = word.node === node ? 0 : -1;
    node.focus();
  }

  finish(event) {
    this.ended = true;
    this.partial.replaceChildren();
    const words = this.words.length;
    const count = words === 1 ? "1 word" : `${words} words`;
    this.status(words ? `${clock(event.duration)}, ${count}.` : "No words found.");
    if (!words) return;
    this.offerSound();
    for (const [format, type] of [["srt", "application/x-subrip"], ["html", "text/html"]]) {
      const link = this.part(`.${format}`);
      link.href = URL.createObjectURL(new Blob([event[format]], { type }));
      link.download = `${this.name.replace(/\.[^.]*$/, "")}.${format}`;
      link.hidden = false;
    }
    this.part(".copy").hidden = !navigator.clipboard; // browsers have none without https, but on localhost
  }

  sound(blob) {
    const audio = new Audio(URL.createObjectURL(blob));
    audio.onloadedmetadata = () => {
      this.audio = audio;
      this.part(".play").hidden = false;
      this.offerSound();
    };
    audio.onplay = () => (this.part(".play").textContent = "Pause");
    audio.onpause = () => {
      this.part(".play").textContent = "Play";
      this.mark(-1);
    };
  }

  // Where the browser can play it, and there are words.
  offerSound() {
    this.part(".hear").hidden = !(this.audio && this.ended && this.words.length);
  }

  play(start, end) {
    if (!this.audio) return;
    if (playing && playing !== this) playing.audio.pause();
    playing = this;
    clearInterval(this.timer);
    this.audio.currentTime = Math.max(0, start);
    this.audio.play();
    this.timer = setInterval(() => {
      const now = this.audio.currentTime;
      if (now >= end) this.audio.pause();
      if (this.audio.paused) clearInterval(this.timer);
      else this.mark(now);
    }, 40);
  }

  mark(now) {
    for (const word of this.words) word.node.classList.toggle("playing", word.start <= now && now < word.end);
  }
}

// ------------------------------------------------------------------------------------------------ recordings

let queue = Promise.resolve(); // one after the other: the service does the same

function takeFiles(files) {
  showProblem("");
  for (const file of files) {
    const transcript = new Transcript(file.name, "Waiting …");
    if (limits && file.size > limits.max_upload_mb * 1e6) {
      transcript.fail(`Larger than ${limits.max_upload_mb} MB, the limit here.`);
      continue;
    }
    transcript.sound(file);
    queue = queue.then(() => send(file, transcript)).catch(() => transcript.fail(UNREACHABLE));
  }
}

async function send(file, transcript) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    return transcript.fail("It cannot be read: a folder, or a file that was moved. Choose files.");
  }
  transcript.status("Transcribing …");
  const form = new FormData();
  form.append("file", file);
  const answer = await fetch("transcribe?format=events", { method: "POST", body: form });
  if (!answer.ok) {
    const failed = { error: `The service has failed (status ${answer.status}). Try again.` };
    return transcript.take(await answer.json().catch(() => failed));
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true })); // the connection has broken
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) transcript.take(JSON.parse(line));
  }
  if (!transcript.ended) transcript.fail(CUT_OFF);
}

$("files").onchange = (event) => {
  takeFiles(event.target.files);
  event.target.value = "";
};
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFiles(event.dataTransfer.files);
  });
}

// ------------------------------------------------------------------------------------------------ microphone

let recording = null;

$("speak").onclick = () => {
  if (recording) recording.stop();
  else if ($("speak").ariaDisabled !== "true") speak().catch((error) => showProblem(reason(error)));
};

function reason(error) {
  if (!navigator.mediaDevices) return "The microphone needs https, or the address localhost.";
  if (error.name === "NotAllowedError") return "The browser does not allow the microphone for this page.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  return String(error.message ?? error);
}

function button(text, on, disabled = false) {
  $("speak-text").textContent = text;
  $("speak").classList.toggle("on", on);
  $("speak").ariaDisabled = disabled; // not `disabled`, which takes the focus from those who press a key to stop
  $("level").hidden = !on;
}

async function speak() {
  showProblem("");
  button("Speak", false, true);
  let media, context;
  try {
    // What calls need takes away parts of speech.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: true };
    media = await navigator.mediaDevices.getUserMedia({ audio });
    context = new AudioContext();
    await context.audioWorklet.addModule("recorder.js");
  } catch (error) {
    button("Speak", false);
    throw error;
  }
  const address = new URL(`stream?rate=${context.sampleRate}`, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  const node = new AudioWorkletNode(context, "recorder");
  const transcript = new Transcript(`Spoken at ${new Date().toLocaleTimeString()}`, "Listening …");
  const parts = [];
  let opened = false;
  let ended = false;

  const stop = () => {
    if (!recording) return;
    recording = null;
    button("Speak", false, true);
    node.port.postMessage("stop");
  };
  const end = () => {
    if (ended) return;
    ended = true;
    recording = null;
    for (const track of media.getTracks()) track.stop();
    context.close();
    button("Speak", false);
    if (parts.length) transcript.sound(wav(parts, context.sampleRate));
  };
  node.port.onmessage = ({ data }) => {
    if (data.pcm?.length) {
      parts.push(data.pcm);
      $("level").value = Math.sqrt(data.peak);
      if (socket.readyState === WebSocket.OPEN) socket.send(data.pcm);
    }
    if (data.done && socket.readyState === WebSocket.OPEN) socket.send("end");
  };
  socket.onopen = () => {
    opened = true;
    recording = { stop };
    context.createMediaStreamSource(media).connect(node);
    button("Stop", true);
  };
  socket.onmessage = ({ data }) => transcript.take(JSON.parse(data));
  socket.onclose = () => {
    end();
    if (!transcript.ended) transcript.fail(opened ? CUT_OFF : UNREACHABLE);
  };
}

// 16-bit samples as a WAV file, to hear the words again.
function wav(parts, rate) {
  const bytes = 2 * parts.reduce((sum, part) => sum + part.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, letters) => [...letters].forEach((letter, i) => header.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...parts], { type: "audio/wav" });
}
