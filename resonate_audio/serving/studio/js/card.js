// A sound that was made, with all that can be done with it.

import { copyButton, el } from "./dom.js";
import { Player } from "./player.js";
import { asCommand, asCurl, asPython, keepSettings, loadSettings } from "./settings.js";

/** Settings and facts of a sound as the server lists it. */
export function describeSound(sound) {
  return {
    id: sound.id,
    prompt: sound.prompt,
    negative: sound.negative_prompt ?? "",
    model: sound.model,
    duration: sound.duration_s,
    steps: sound.num_inference_steps,
    guidance: sound.guidance_scale,
    seed: sound.seed,
    isCut: Boolean(sound.prompt_cut),
    made: sound.created ? new Date(sound.created * 1000) : null,
  };
}

export const factsOf = (sound) =>
  `${sound.model} · ${Number(sound.duration).toFixed(1)} s · ${sound.steps} steps · guidance ${sound.guidance} · seed ${sound.seed}`;

/** A card; `blob` is the sound itself. */
export function soundCard(sound, blob, extra = []) {
  const player = new Player(blob, { label: sound.prompt, spectrogram: true });
  const name = `${sound.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40) || "sound"}-${sound.seed}.wav`;
  const card = el(
    "article",
    { class: "card sound-card" },
    el("header", {}, el("h3", {}, sound.prompt)),
    player.element,
    el("p", { class: "facts-line" }, factsOf(sound), sound.negative ? ` · not: ${sound.negative}` : ""),
    sound.isCut && el("p", { class: "facts-line" }, "The text is longer than the model reads; its end was not heard."),
    el(
      "footer",
      {},
      el("a", { href: player.audio.src, download: name }, "Download"),
      copyButton("Copy as CLI", () => asCommand(sound)),
      copyButton("Copy as Python", () => asPython(sound)),
      copyButton("Copy as curl", () => asCurl(sound)),
      ...extra,
    ),
  );
  card.player = player;
  return card;
}

/** Take a sound's settings to the first screen. */
export function reuse(sound) {
  const { prompt, negative, model, duration, steps, guidance, seed } = sound;
  keepSettings({ ...loadSettings(), prompt, negative, model, duration, steps, guidance, seed, locked: true });
  location.hash = "#/generate";
}
