// Sounds on the page: play button, waveform, position, spectrogram. One of them plays at a time.

import WaveSurfer from "../vendor/wavesurfer.esm.js";
import { el, note, svg } from "./dom.js";
import { drawSpectrogram } from "./spectrogram.js";

const MARKED_S = 0.15;
const SEAM_S = 1.5;
let playing = null;

/** Samples of a sound, at the rate that a WAV file says it has. */
export async function decode(blob) {
  const bytes = await blob.arrayBuffer();
  const isWave = bytes.byteLength > 44 && new TextDecoder().decode(bytes.slice(0, 4)) === "RIFF";
  const rate = isWave ? new DataView(bytes).getUint32(24, true) : 44100;
  const context = new OfflineAudioContext(1, 1, Math.min(96000, Math.max(8000, rate)));
  const buffer = await context.decodeAudioData(bytes);
  return { samples: buffer.getChannelData(0), sampleRate: buffer.sampleRate, seconds: buffer.duration };
}

/** The round button. */
export function playButton(label) {
  const icon = svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg("path", { class: "go", d: "M8 5.2v13.6L19 12z" }),
    svg("path", { class: "stop", d: "M7 5h3.6v14H7zM13.4 5H17v14h-3.6z" }),
  );
  return el("button", { type: "button", class: "play", "aria-label": `Play: ${label}`, "aria-pressed": "false" }, icon);
}

/**
 * A player of one sound, or of one that is fetched when it is first played. Options: label, onended,
 * seekable, spectrogram, tail (seconds of silence at the end, which are marked), seconds (its length,
 * shown until it is here).
 */
export class Player {
  constructor(sound, { label, onended = null, seekable = true, spectrogram = false, tail = 0, seconds = 0 } = {}) {
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.tail = el("i", { class: "tail" });
    this.tailSeconds = tail;
    this.button = playButton(label);
    this.clock = el("span", { class: "clock" }, `${seconds.toFixed(1)} s`);
    this.wave = el("div", { class: "wave" });
    this.seek = el("input", { type: "range", class: "over", min: 0, max: 1000, value: 0, "aria-label": `Position in: ${label}` });
    this.seek.disabled = !seekable;
    this.canvas = spectrogram ? el("canvas", { class: "spectrogram", width: 480, height: 96, role: "img", "aria-label": `Spectrogram: ${label}` }) : null;
    this.picture = el("div", { class: "sound" }, this.wave, this.canvas, this.seek, this.tail, el("i", { class: "playhead" }));
    this.element = el("div", { class: "player-row" }, this.button, this.picture, this.clock);
    this.onended = onended;
    /** Told before it plays, and when somebody moves its playhead. */
    [this.onstart, this.onmove] = [null, null];
    this.loop = null;
    this.listen();
    this.fetch = typeof sound === "function" ? sound : null;
    this.ready = this.fetch ? null : this.take(sound);
  }

  /** The sound is here: show it. */
  async take(blob) {
    this.audio.src = URL.createObjectURL(blob);
    await this.draw(blob);
  }

  /** Have the sound, once; a fetch that failed is tried again the next time. */
  load() {
    this.ready ??= this.fetch().then((blob) => this.take(blob)).catch((error) => {
      this.ready = null;
      throw error;
    });
    return this.ready;
  }

  listen() {
    this.button.addEventListener("click", () => (this.audio.paused ? this.play().catch((error) => this.fail(error)) : this.audio.pause()));
    this.seek.addEventListener("input", () => this.goTo((this.seek.value / 1000) * this.length()));
    this.element.addEventListener("keydown", (event) => {
      const seconds = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!seconds || this.seek.disabled || event.target.matches("input:not(.over)")) return;
      event.preventDefault();
      this.goTo(Math.min(this.length(), Math.max(0, this.audio.currentTime + seconds)));
    });
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => this.show());
    for (const name of ["timeupdate", "seeked", "durationchange"]) this.audio.addEventListener(name, () => this.move());
    this.audio.addEventListener("ended", () => this.onended?.());
  }

  /** Somebody moves the playhead. */
  goTo(seconds) {
    this.audio.currentTime = seconds;
    this.onmove?.();
  }

  /** Say on the page why it does not play; the button tries again. */
  fail(error) {
    if (error.name === "AbortError") return;
    this.clock.textContent = "";
    this.wave.replaceChildren(note(error.message, true));
  }

  length() {
    return Number.isFinite(this.audio.duration) ? this.audio.duration : 0;
  }

  async play() {
    if (playing !== this) playing?.audio.pause();
    playing = this;
    if (this.fetch) await this.load();
    if (playing === this) {
      this.onstart?.();
      await this.audio.play();
    }
    requestAnimationFrame(() => this.follow());
  }

  follow() {
    this.move();
    if (!this.audio.paused) requestAnimationFrame(() => this.follow());
  }

  show() {
    this.button.setAttribute("aria-pressed", String(!this.audio.paused));
  }

  move() {
    if (!this.audio.src) return;
    const share = this.length() ? this.audio.currentTime / this.length() : 0;
    this.picture.style.setProperty("--at", share);
    this.picture.classList.toggle("begun", share > 0);
    this.seek.value = share * 1000;
    this.seek.setAttribute("aria-valuetext", `${this.audio.currentTime.toFixed(1)} of ${this.length().toFixed(1)} seconds`);
    this.clock.textContent = `${(this.audio.paused && !share ? this.length() : this.audio.currentTime).toFixed(1)} s`;
  }

  async draw(blob) {
    const { samples, sampleRate, seconds } = await decode(blob);
    const style = getComputedStyle(document.documentElement);
    this.wave.replaceChildren();
    this.surfer = WaveSurfer.create({
      container: this.wave,
      height: 56,
      peaks: [samples],
      duration: seconds,
      interact: false,
      cursorWidth: 0,
      barWidth: 2,
      barGap: 1,
      barRadius: 2,
      normalize: true,
      waveColor: style.getPropertyValue("--accent").trim(),
    });
    if (this.canvas) drawSpectrogram(this.canvas, samples, sampleRate);
    if (this.tailSeconds > MARKED_S) this.tail.style.setProperty("width", `${(100 * this.tailSeconds) / seconds}%`);
    this.move();
  }

  /** Play it around and around without a gap, from shortly before its seam; `ended` is told the end. */
  async startLoop(ended) {
    silence();
    const loop = { audio: { pause: () => {} } };
    this.loop = playing = loop;
    const over = () => this.loop === loop && ended(); // one that was begun since is told of itself
    const context = new AudioContext();
    try {
      if (this.fetch) await this.load();
      const buffer = await context.decodeAudioData(await (await fetch(this.audio.src)).arrayBuffer());
      if (playing !== loop) throw new DOMException("stopped before it began", "AbortError");
      this.goAround(loop, context, buffer, over);
    } catch (error) {
      context.close();
      over();
      throw error;
    }
  }

  goAround(loop, context, buffer, over) {
    const source = new AudioBufferSourceNode(context, { buffer, loop: true });
    const offset = Math.max(0, buffer.duration - SEAM_S);
    source.connect(context.destination);
    source.start(0, offset);
    const begun = context.currentTime;
    const shown = setInterval(() => this.at((offset + context.currentTime - begun) % buffer.duration, buffer.duration), 40);
    source.addEventListener("ended", () => {
      clearInterval(shown);
      context.close();
      this.move();
      over();
    });
    loop.audio.pause = () => source.stop();
  }

  /** Show a moment on the picture. */
  at(seconds, length) {
    this.picture.style.setProperty("--at", seconds / length);
    this.picture.classList.add("begun");
  }

  destroy() {
    this.audio.pause();
    if (this.loop && playing === this.loop) silence();
    URL.revokeObjectURL(this.audio.src);
    this.surfer?.destroy();
  }
}

/** Stop whatever plays. */
export function silence() {
  playing?.audio.pause();
  playing = null;
}
