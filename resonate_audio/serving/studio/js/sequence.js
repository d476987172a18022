// Sequence: one sound that follows one prompt after the other.

import { makeSounds } from "./api.js";
import { describeSound, prependCards, soundCard } from "./card.js";
import { announce, el, empty, field, redraw } from "./dom.js";
import { adapterFields, modelField, modelOf, number, randomSeed, solverFields } from "./settings.js";
import { underBar } from "./work.js";

const FIRST = [["rain falls", 3], ["thunder rumbles", 3]];
const LEAST_S = 0.5, MOST_PARTS = 12;
const clock = (seconds) => `${Number(seconds.toFixed(2))} s`;

/** What is heard when, and what came of it. */
export function sequenceBench(models) {
  const state = { models, model: models[0].id, parts: FIRST.map(([prompt, seconds]) => ({ prompt, seconds })), takes: 1, steps: null, guidance: null };
  const results = el("div", { class: "stack", role: "region", "aria-label": "Made just now" });
  const form = el("form", { class: "panel", "aria-label": "What is heard when" });
  const draw = (focus = null) => {
    redraw(form, ...controls(state, draw));
    form.querySelectorAll(".part input[type=text]")[focus]?.focus();
  };
  draw();
  const blank = empty("Nothing made yet", "Say what is heard when; each part knows what comes before and after it.");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    form.querySelector("button.main").disabled = true;
    const made = await make(state);
    form.querySelector("button.main").disabled = false;
    if (!made) return;
    blank.remove();
    prependCards(results, made.map((sound) => soundCard(describeSound(sound), sound.blob)));
  });
  return el("div", { class: "work" }, form, el("div", { class: "stack" }, blank, results));
}

function controls(state, draw) {
  const picture = el("ol", { class: "schedule", "aria-label": "Parts in time" });
  const show = () => picture.replaceChildren(...segments(state));
  show();
  const rows = state.parts.map((part, n) => partRow(state, part, n, show, draw));
  const add = el("button", { type: "button", class: "plain", disabled: state.parts.length >= MOST_PARTS, onclick: () => (state.parts.push({ prompt: "", seconds: 3 }), draw(state.parts.length - 1)) }, "Add a part");
  const model = modelOf(state.models, state.model);
  return [
    el("p", { class: "facts-line" }, "One part follows the other; between two the sound passes over within a quarter of a second."),
    picture,
    ...rows,
    el("div", { class: "row" }, add),
    el(
      "div",
      { class: "pair" },
      number("Sounds", state.takes, { min: 1, max: 8, oninput: (value) => (state.takes = value) }),
      modelField(state.models, state.model, (value) => (Object.assign(state, { model: value, steps: null, guidance: null }), draw())),
    ),
    ...adapterFields(state.models, state.model, (value) => (state.model = value)),
    el("div", { class: "pair" }, ...solverFields(state, (name) => (value) => (state[name] = value), model)),
    el("div", { class: "actions" }, el("button", { class: "main" }, "Make the sequence")),
  ];
}

function partRow(state, part, n, show, draw) {
  const prompt = el("input", { type: "text", required: true, maxlength: 2000, value: part.prompt, oninput: (event) => ((part.prompt = event.target.value), show()) });
  const most = modelOf(state.models, state.model).max_duration_s;
  const lasts = number("Seconds", part.seconds, { min: LEAST_S, max: most, step: "any", oninput: (value) => ((part.seconds = value ?? LEAST_S), show()) });
  const remove = el("button", { type: "button", class: "plain", disabled: state.parts.length < 2, "aria-label": `Remove part ${n + 1}`, onclick: () => (state.parts.splice(n, 1), draw(Math.max(0, n - 1))) }, "Remove");
  return el("fieldset", { class: "part" }, el("legend", { class: "hidden" }, `Part ${n + 1}`), field(`Part ${n + 1}`, prompt), lasts, remove);
}

/** Parts from their beginnings to their ends. */
function planned(parts) {
  let reached = 0;
  return parts.map(({ prompt, seconds }) => ({ start_s: reached, stop_s: (reached = Math.round(1000 * (reached + seconds)) / 1000), prompt }));
}

function segments(state) {
  return planned(state.parts).map(({ start_s, stop_s, prompt }) => {
    const one = el("li", {}, el("b", {}, prompt || "…"), el("small", {}, `${clock(start_s)} to ${clock(stop_s)}`));
    one.style.setProperty("flex-grow", Math.max(0.01, stop_s - start_s));
    return one;
  });
}

async function make(state) {
  const wanted = {
    parts: planned(state.parts),
    model: state.model,
    num_inference_steps: state.steps,
    guidance_scale: state.guidance,
    seeds: Array.from({ length: state.takes }, randomSeed),
  };
  const label = `Sequence: ${state.parts.map((part) => part.prompt).join("; ")}`;
  const sounds = await underBar(label, (onStep, signal) => makeSounds(wanted, onStep, signal));
  if (sounds) announce(label);
  return sounds;
}
