// Generate: a sentence becomes a sound.

import { listModels, makeSounds } from "./api.js";
import { describeSound, prependCards, reuse, soundCard } from "./card.js";
import { el, empty, field, heading, redraw } from "./dom.js";
import { adapterFields, alsoLine, durationField, keepSettings, knownModel, loadSettings, modelField, modelOf, number, randomSeed, solverFields, toRequest } from "./settings.js";
import { underBar } from "./work.js";

const EXAMPLES = ["a rooster crows, then rain falls", "a church bell rings once", "thunder rolls far away"];

export async function generate(screen) {
  const models = await listModels();
  const settings = loadSettings();
  settings.model = knownModel(models, settings.model);
  const results = el("div", { class: "stack", "aria-label": "Made just now", role: "region" });
  const form = el("form", { class: "panel", "aria-label": "Settings" });
  const blank = empty("Nothing made yet", "Write what you want to hear, or begin with one of these.", examples(form));
  const draw = () => redraw(form, ...controls(settings, models, draw));
  draw();
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(settings, draw, form, results, blank);
  });
  screen.append(
    heading("Generate", "Write what you want to hear. The same seed gives the same sound again."),
    el("div", { class: "work" }, form, el("div", { class: "stack" }, blank, results)),
  );
  // What was made stays; settings that another screen handed over are taken up.
  return { refresh: () => (Object.assign(settings, loadSettings()), draw()) };
}

function examples(form) {
  const buttons = EXAMPLES.map((text) =>
    el("button", { type: "button", class: "plain", onclick: () => fill(form, text) }, text),
  );
  return el("p", {}, el("span", { class: "row centre" }, ...buttons));
}

function fill(form, text) {
  const prompt = form.querySelector("textarea");
  prompt.value = text;
  prompt.dispatchEvent(new Event("input"));
  prompt.focus();
}

function controls(settings, models, draw) {
  settings.model = knownModel(models, settings.model);
  const model = modelOf(models, settings.model);
  settings.duration = Math.min(model.max_duration_s, Math.max(model.min_duration_s, settings.duration ?? model.default_duration_s));
  if (model.guidance_inside) Object.assign(settings, { guidance: null, negative: "" });
  if (settings.steps > model.max_steps) settings.steps = null;
  const set = (name) => (value) => {
    settings[name] = value;
    keepSettings(settings);
  };
  const prompt = el("textarea", { required: true, maxlength: 2000, rows: 3, placeholder: EXAMPLES[0], value: settings.prompt, oninput: (event) => set("prompt")(event.target.value) });
  const negative = el("input", { type: "text", maxlength: 2000, value: settings.negative, oninput: (event) => set("negative")(event.target.value) });
  return [
    field("What to hear", prompt),
    ...(model.guidance_inside ? [] : [field("What not to hear", negative)]),
    durationField(model, settings.duration, set("duration")),
    el(
      "div",
      { class: "pair" },
      ...solverFields(settings, set, model),
    ),
    ...alsoLine(settings, () => (set("also")({}), draw())),
    seedField(settings, set),
    el(
      "div",
      { class: "pair" },
      number("Sounds", settings.takes, { min: 1, max: 8, oninput: set("takes") }),
      modelField(models, settings.model, (value) => (openAll(settings), set("model")(value), draw())),
    ),
    ...adapterFields(models, settings.model, set("model")),
    el("label", { class: "check" }, el("input", { type: "checkbox", checked: settings.loop, onchange: (event) => set("loop")(event.target.checked) }), "Loop: the end goes on into the beginning"),
    el("div", { class: "actions" }, el("button", { class: "main" }, "Generate")),
  ];
}

/** Another model has its own steps, guidance and solver; one with guidance inside takes no negative prompt. */
function openAll(settings) {
  Object.assign(settings, { steps: null, guidance: null, negative: "", also: {} });
}

function seedField(settings, set) {
  const control = el("input", { type: "number", min: 0, max: 2 ** 53 - 1, step: 1, required: true, value: settings.seed, oninput: (event) => set("seed")(event.target.valueAsNumber) });
  const lock = el("button", { type: "button", class: "plain", "aria-pressed": String(settings.locked) }, "Lock");
  lock.addEventListener("click", () => {
    set("locked")(!settings.locked);
    lock.setAttribute("aria-pressed", String(settings.locked));
  });
  const element = field("Seed", control, "Locked: the same noise again.");
  element.insertBefore(el("div", { class: "with-button" }, control, lock), element.lastChild);
  return element;
}

async function run(settings, draw, form, results, blank) {
  if (!settings.locked) settings.seed = randomSeed();
  keepSettings(settings);
  draw();
  const wanted = toRequest(settings, Array.from({ length: settings.takes }, (_, n) => settings.seed + n));
  const label = settings.prompt;
  const sounds = await busy(form, () => underBar(label, (onStep, signal) => makeSounds(wanted, onStep, signal)));
  if (!sounds) return;
  blank.remove();
  prependCards(results, sounds.map((sound) => madeCard(describeSound(sound), sound.blob)));
}

const madeCard = (sound, blob) => soundCard(sound, blob, [el("button", { type: "button", class: "copy", onclick: () => reuse(sound) }, "Use these settings")]);

/** Keep a form's button off while something is done. */
async function busy(form, work) {
  const hold = (is) => form.querySelectorAll("button.main").forEach((button) => (button.disabled = is));
  hold(true);
  try {
    return await work();
  } finally {
    hold(false);
  }
}
