// The utterances of the page: lists, search, keyboard, sound, and the pictures of the one that is open.
"use strict";

const { utterances, lists, unit, detailed: withMedia } = JSON.parse(document.getElementById("data").textContent);
const detailed = new Set(withMedia);
lists.all = utterances.map((_, number) => number);
const list = document.getElementById("list"), more = document.getElementById("more");
const search = document.querySelector("input[type=search]");
const AT_ONCE = 100; // rows that are added to the list together
const PIXELS_PER_S = 140;
const WIDEST = 16000; // pixels of a canvas that every browser draws

let name = lists.worst.length ? "worst" : "random"; // of the list
let numbers = []; // of the utterances in it
let position = -1; // in the list, of the one that is open
let playing = null; // {audio, button, stop}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Right to left where the first letter is of Hebrew, Arabic or a script beside them.
function direction(text) {
  return /^\P{L}*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/u.test(text) ? "rtl" : "ltr";
}

// What is compared: words, or characters where the script has no spaces between words.
function units(text) {
  return unit === "characters" ? [...text.replaceAll(" ", "")] : text.split(" ");
}

// The columns of an alignment: [operation, reference word, hypothesis word].
function columns([, , , reference, hypothesis, operations]) {
  const [expected, found] = [reference, hypothesis].map(units);
  let r = 0, h = 0;
  return [...operations].map((o) => [o, o === "I" ? "" : expected[r++], o === "D" ? "" : found[h++]]);
}

function difference(row) {
  const text = element("p", { className: "text", dir: direction(row[3] || row[4]) });
  const space = unit === "characters" ? "" : " ";
  for (const [operation, expected, found] of columns(row)) {
    if (operation === "C") text.append(expected, space);
    else {
      if (expected) text.append(element("del", {}, expected), space);
      if (found) text.append(element("ins", {}, found), space);
    }
  }
  if (!row[5]) text.append(element("span", { className: "muted" }, "(nothing said, nothing recognised)"));
  return text;
}

function rowOf(number) {
  const row = utterances[number], [id, speaker, seconds, , , operations] = row;
  const errors = [...operations].filter((o) => o !== "C").length;
  const words = [...operations].filter((o) => o !== "I").length;
  const facts = element("div", { className: "facts" }, element("b", {}, `${errors} of ${words} wrong`), element("span", {}, id));
  if (speaker) facts.append(element("span", {}, `speaker ${speaker}`));
  facts.append(element("span", {}, `${seconds.toFixed(1)} s`));
  if (detailed.has(number)) facts.append(element("span", { title: "with sound and picture" }, "♪"));
  const article = element("article", { className: "utterance", tabIndex: -1 }, element("div", { className: "head" }, facts, difference(row)));
  article.setAttribute("aria-expanded", "false");
  article.firstChild.addEventListener("click", () => {
    const at = [...list.children].indexOf(article);
    if (at === position) close();
    else open(at);
  });
  return article;
}

function show(chosen, query = search.value) {
  stop();
  name = chosen;
  position = -1;
  const wanted = query.trim().toLowerCase();
  const matches = (number) => {
    const [id, speaker, , reference, hypothesis] = utterances[number];
    const text = ` ${reference} \n ${hypothesis} `.toLowerCase();
    return id.toLowerCase().includes(wanted) || speaker.toLowerCase() === wanted || text.includes(unit === "characters" ? wanted : ` ${wanted}`);
  };
  numbers = wanted ? lists[name].filter(matches) : lists[name];
  document.querySelectorAll("[data-list]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.list === name));
  document.getElementById("found").textContent = wanted ? `${numbers.length} found` : "";
  list.replaceChildren();
  extend();
}

function extend() {
  const shown = list.children.length;
  list.append(...numbers.slice(shown, shown + AT_ONCE).map(rowOf));
  more.hidden = list.children.length >= numbers.length;
}

function close() {
  stop();
  const article = list.children[position];
  article?.querySelector(".detail")?.remove();
  article?.setAttribute("aria-expanded", "false");
  position = -1;
}

function open(at) {
  if (at < 0 || at >= numbers.length) return;
  close();
  while (at >= list.children.length) extend();
  position = at;
  const article = list.children[at];
  article.setAttribute("aria-expanded", "true");
  const detail = element("div", { className: "detail" });
  article.append(detail);
  const row = utterances[numbers[at]], media = mediaOf(numbers[at]);
  if (media) drawDetail(detail, media, row);
  else if (detailed.has(numbers[at]))
    document.addEventListener("DOMContentLoaded", () => { if (detail.isConnected) open(at); }, { once: true });
  detail.append(aligned(row));
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}

// Words, sound and picture; null while the browser still reads them: they come after this script, so that the
// list need not wait for megabytes.
function mediaOf(number) {
  const source = document.getElementById(`detail-${number}`);
  const whole = document.readyState !== "loading" || source?.nextElementSibling;
  return source && whole ? JSON.parse(source.textContent) : null;
}

function aligned(row) {
  const box = element("div", { className: "aligned", dir: direction(row[3] || row[4]) });
  box.append(element("span", { className: "labels" }, element("i", {}, "said"), element("i", {}, "recognised")));
  for (const [operation, expected, found] of columns(row))
    box.append(element("span", { className: operation }, element("i", {}, expected), element("i", {}, found)));
  return box;
}

function drawDetail(box, detail, row) {
  if (!detail.sound) return;
  const width = Math.max(detail.seconds * PIXELS_PER_S, Math.min(box.clientWidth - 30, 700)), scale = width / detail.seconds;
  const audio = new Audio(detail.sound), button = element("button", {}, "▶ Play"), clock = element("span", { className: "muted" });
  const cursor = element("div", { className: "cursor" });
  const track = element("div", { className: "track" }), canvas = element("canvas");
  track.style.width = `${width}px`;
  track.append(element("img", { src: detail.picture, alt: "log-mel energies over time" }), canvas, wordsOf(detail, row, scale, audio), cursor);
  const timeline = element("div", { className: "timeline" }, track);
  box.append(element("div", { className: "player" }, button, clock), timeline);
  const move = () => {
    cursor.style.left = `${audio.currentTime * scale}px`;
    clock.textContent = `${audio.currentTime.toFixed(1)} of ${detail.seconds.toFixed(1)} s`;
    const left = audio.currentTime * scale - timeline.scrollLeft;
    if (left > timeline.clientWidth * 0.9 || left < 0) timeline.scrollLeft = audio.currentTime * scale - 60;
    if (!audio.paused) requestAnimationFrame(move);
  };
  audio.addEventListener("play", () => { button.textContent = "❚❚ Pause"; move(); });
  audio.addEventListener("pause", () => { button.textContent = "▶ Play"; move(); });
  audio.addEventListener("seeked", move);
  button.addEventListener("click", toggle);
  track.addEventListener("click", (event) => { audio.currentTime = (event.clientX - track.getBoundingClientRect().left) / scale; });
  playing = { audio, stop: () => audio.pause() };
  move();
  drawPosteriors(canvas, detail, width, scale);
}

// Where a label of this width fits beside those before it: the first line that is free, or the last one.
function lineFor(ends, left, width) {
  const free = ends.findIndex((end) => left >= end);
  const line = free < 0 ? ends.length - 1 : free;
  ends[line] = left + width;
  return line;
}

function wordsOf(detail, row, scale, audio) {
  const box = element("div", { className: "words" });
  const operations = [...row[5]].filter((o) => o !== "D"), ends = [0, 0, 0];
  for (const [number, [text, start, end, sure]] of detail.words.entries()) {
    const wrong = operations.length === detail.words.length && operations[number] !== "C";
    const word = element("button", { className: wrong ? "wrong" : "", title: `${text}: ${start} to ${end} s, confidence ${sure}` }, text);
    word.style.left = `${start * scale}px`;
    word.style.top = `${22 * lineFor(ends, start * scale, 7.2 * text.length + 10)}px`;
    word.style.setProperty("--sure", sure);
    word.addEventListener("click", (event) => { event.stopPropagation(); audio.currentTime = start; audio.play(); });
    box.append(word);
  }
  box.style.height = `${22 * ends.filter((end) => end > 0).length + 4}px`;
  return box;
}

function drawPosteriors(canvas, detail, width, scale) {
  const height = 100, top = 56, ratio = Math.min(window.devicePixelRatio || 1, WIDEST / width);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.strokeRect(-1, height - 0.5, width + 2, 1);
  const step = detail.step_s * scale, ends = [0, 0, 0, 0];
  for (const [token, start, levels] of detail.runs) {
    const hue = ([...token].reduce((sum, letter) => sum + letter.codePointAt(0) * 47, 0) * 61) % 360;
    pen.fillStyle = `hsl(${hue} 65% 55% / 0.75)`;
    let peak = 0;
    [...levels].forEach((digit, index) => {
      const share = (Number(digit) + 0.5) / 10;
      if (Number(digit) > Number(levels[peak])) peak = index;
      pen.fillRect((start + index) * step, height - share * (height - top), Math.max(step - 0.5, 1), share * (height - top));
    });
    if (Number(levels[peak]) < 2) continue;
    const label = token === " " ? "␣" : token, left = (start + peak) * step, size = pen.measureText(label).width + 2;
    if (ends.every((end) => left < end)) continue; // no line is free: the colours remain
    pen.fillStyle = style.getPropertyValue("--text");
    pen.fillText(label, left, 50 - 12 * lineFor(ends, left, size));
  }
}

function stop() {
  playing?.stop();
  playing = null;
}

function toggle() {
  if (!playing) return;
  if (playing.audio.paused) playing.audio.play();
  else playing.audio.pause();
}

document.querySelectorAll("[data-list]").forEach((button) => button.addEventListener("click", () => show(button.dataset.list)));
document.querySelectorAll("[data-find]").forEach((link) => link.addEventListener("click", () => {
  search.value = link.dataset.find;
  show("all");
}));
search.addEventListener("input", () => show(name));
more.addEventListener("click", extend);

document.addEventListener("keydown", (event) => {
  if (event.target === search) {
    if (event.key === "Escape") search.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrows = position >= 0; // otherwise they scroll
  if (event.key === "j" || (arrows && event.key === "ArrowDown")) open(Math.min(position + 1, numbers.length - 1));
  else if (event.key === "k" || (arrows && event.key === "ArrowUp")) open(Math.max(position - 1, 0));
  else if (event.key === " " && playing) toggle();
  else if (event.key === "/") search.focus();
  else if (event.key === "Escape" && position >= 0) close();
  else return;
  event.preventDefault();
});

show(name);
