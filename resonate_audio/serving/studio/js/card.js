// A sound that was made, with all that can be done with it.

import { copyButton, el, fileName, toggle } from "./dom.js";
import { Player, silence } from "./player.js";
import { asCommand, asCurl, asPython, further, keepSettings, loadSettings } from "./settings.js";

const MADE = { vary: "varied", reword: "reworded", replace: "in part made anew", extend: "extended", loop: "loop", sequence: "sequence", finish: "finished", upload: "brought in" };
const SHORT_TAIL_S = 0.15;
/** Less silence than this at the end is no fault. */

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
    further: further(sound),
    length: sound.audio_length ?? sound.duration_s,
    finish: Object.fromEntries(Object.entries(sound.finish ?? {}).filter(([, value]) => value !== null)),
    seed: sound.seed,
    made: sound.made ?? "generate",
    source: sound.source ?? null,
    name: sound.name ?? "",
    tags: sound.tags ?? [],
    favourite: Boolean(sound.favourite),
    loudness: sound.loudness_lufs ?? null,
    tail: sound.silent_tail_s ?? 0,
    isCut: Boolean(sound.prompt_cut),
    created: sound.created ? new Date(sound.created * 1000) : null,
  };
}

/** What people call a sound. */
export const titleOf = (sound) => sound.name || sound.prompt || "a sound without words";

export function factsOf(sound) {
  const further = Object.entries({ ...sound.further, ...sound.finish }).map(([name, value]) => ` · ${name.replaceAll("_", " ")} ${value}`).join("");
  return sound.model
    ? `${sound.model} · ${Number(sound.duration).toFixed(1)} s · ${sound.steps} ${sound.steps === 1 ? "step" : "steps"} · guidance ${sound.guidance} · seed ${sound.seed}${further}`
    : `${Number(sound.duration).toFixed(1)} s${further}`;
}

/** How it was made, how loud it is, how much silence ends it. */
export function marks(sound) {
  return el(
    "p",
    { class: "row marks" },
    MADE[sound.made] && el("span", { class: "badge" }, MADE[sound.made]),
    sound.loudness !== null && el("span", { class: "badge" }, `${sound.loudness.toFixed(1).replace("-", "−")} LUFS`),
    sound.tail > SHORT_TAIL_S && el("span", { class: "badge worst" }, `${sound.tail.toFixed(1)} s of silence at the end`),
    ...sound.tags.map((tag) => el("span", { class: "badge" }, `#${tag}`)),
  );
}

export const editLink = (sound) => el("a", { class: "copy", href: `#/edit/${encodeURIComponent(sound.id)}`, "aria-label": `Edit: ${titleOf(sound)}` }, "Edit");

/** A switch that plays a sound around its seam, so that one hears whether it loops. */
export function loopSwitch(player, properties = { class: "copy" }) {
  const button = toggle("Loop", false, (isOn) => {
    if (isOn) player.startLoop(() => button.setAttribute("aria-pressed", "false")).catch((error) => player.fail(error));
    else silence();
  }, properties);
  return button;
}

/** A card; `blob` is the sound itself, or what fetches it. */
export function soundCard(sound, blob, extra = []) {
  const player = new Player(blob, { label: titleOf(sound), spectrogram: true, tail: sound.tail });
  const isPlain = sound.made === "generate" || (sound.made === "loop" && !sound.source);
  const card = el(
    "article",
    { class: "card sound-card" },
    el("header", {}, el("h3", {}, titleOf(sound))),
    player.element,
    marks(sound),
    el("p", { class: "facts-line" }, factsOf(sound), sound.negative ? ` · not: ${sound.negative}` : ""),
    sound.isCut && el("p", { class: "facts-line" }, "The text is longer than the model reads; its end was not heard."),
    el(
      "footer",
      {},
      el("a", { href: player.audio.src, download: fileName(sound) }, "Download"),
      editLink(sound),
      loopSwitch(player),
      isPlain && copyButton("Copy as CLI", () => asCommand(sound)),
      isPlain && copyButton("Copy as Python", () => asPython(sound)),
      isPlain && copyButton("Copy as curl", () => asCurl(sound)),
      ...extra,
    ),
  );
  card.player = player;
  return card;
}

/** Put new cards before the old ones; the oldest go when there are many: they are in the library. */
export function prependCards(place, cards, most = 40) {
  place.prepend(...cards);
  while (place.children.length > most) {
    const last = place.lastElementChild;
    last.player?.destroy();
    last.remove();
  }
}

/** Take a sound's settings to the first screen. */
export function reuse(sound) {
  const { prompt, negative, model, length: duration, steps, guidance, seed } = sound;
  const also = { ...sound.further, ...sound.finish };
  keepSettings({ ...loadSettings(), prompt, negative, model, duration, steps, guidance, seed, also, loop: sound.made === "loop", locked: true });
  if (location.hash === "#/generate") dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = "#/generate";
}
