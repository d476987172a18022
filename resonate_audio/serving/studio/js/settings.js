// Settings of a sound: what they are by default, how they are asked for, how they are told.

import { key } from "./api.js";
import { el, field, select } from "./dom.js";

const KEPT = "resonate-settings";
export const DEFAULTS = { prompt: "", negative: "", model: "", duration: null, steps: null, guidance: null, seed: 0, locked: false, takes: 1, loop: false, also: {} };

export const randomSeed = () => Math.floor(Math.random() * 2 ** 31);

/** Settings as they were left; also how the library hands its own over. */
export function loadSettings() {
  try {
    return { ...DEFAULTS, seed: randomSeed(), ...JSON.parse(localStorage.getItem(KEPT) ?? "{}") };
  } catch {
    return { ...DEFAULTS, seed: randomSeed() };
  }
}

export const keepSettings = (settings) => localStorage.setItem(KEPT, JSON.stringify(settings));

/** Settings that came with a sound and have no field: told, and counted until they are left out. */
export function alsoLine(settings, leaveOut) {
  const also = Object.entries(settings.also);
  if (!also.length) return [];
  const told = also.map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(" · ");
  return [el("p", { class: "facts-line" }, `Also: ${told} `, el("button", { type: "button", class: "copy", onclick: leaveOut }, "Leave these out"))];
}

/** Fields for steps and guidance; left empty, each model takes its own. */
export function solverFields(settings, set, model = null) {
  const steps = number("Steps", settings.steps, { min: 1, max: model?.max_steps ?? 200, hint: "Finer, but slower.", oninput: set("steps"), open: String(model?.default_steps ?? "the model's own") });
  if (model?.guidance_inside) return [steps];
  return [steps, number("Guidance", settings.guidance, { min: 0, max: 20, step: 0.1, hint: "Closer to the text.", oninput: set("guidance"), open: String(model?.default_guidance ?? "the model's own") })];
}

/** What the server is asked for. */
export function toRequest(settings, seeds) {
  return {
    input: settings.prompt,
    negative_prompt: settings.negative,
    model: settings.model,
    audio_length: settings.duration,
    num_inference_steps: settings.steps,
    guidance_scale: settings.guidance,
    ...(settings.loop ? { loop: true } : {}),
    ...settings.also,
    seeds,
  };
}

/** A number with limits. */
export function number(label, value, { min, max, step = 1, hint = "", oninput = null, open = "" }) {
  const control = el("input", { type: "number", min, max, step, required: !open, placeholder: open, value: value ?? "" });
  if (oninput) control.addEventListener("input", () => oninput(control.value === "" ? null : control.valueAsNumber));
  return field(label, control, hint);
}

/** Which model; tells when it changes. */
export function modelField(models, value, onchange, label = "Model") {
  const control = select(models.map((model) => [model.id, model.id]), modelOf(models, value)?.id);
  control.addEventListener("change", () => onchange(control.value));
  return field(label, control);
}

/** The model in a name that may add adapters to it: `nano+rain:0.5`. */
export const modelOf = (models, name) => models.find((model) => model.id === String(name).split("+")[0]);

const adaptersIn = (name) => new Map(String(name).split("+").slice(1).map((text) => [text.split(":")[0], Number(text.split(":")[1] ?? 1)]));
const withAdapters = (id, chosen) => [id, ...[...chosen].map(([adapter, weight]) => `${adapter}:${weight}`)].join("+");

/** A name without what this server does not have. */
export function knownModel(models, name, otherwise = models[0].id) {
  const model = modelOf(models, name);
  if (!model) return otherwise;
  const known = [...adaptersIn(name)].filter(([id]) => model.adapters.some((one) => one.id === id));
  return withAdapters(model.id, known);
}

/** Which of the model's adapters are added to it, how strongly; tells the name of the whole. */
export function adapterFields(models, name, onchange) {
  const model = modelOf(models, name);
  const chosen = adaptersIn(name);
  const tell = () => onchange(withAdapters(model.id, chosen));
  const rows = model.adapters.map(({ id, weight }) => {
    const heard = (value) => chosen.has(id) && value !== null && (chosen.set(id, value), tell());
    const amount = number(`Weight of ${id}`, chosen.get(id) ?? weight, { min: -10, max: 10, step: "any", oninput: heard });
    const given = () => amount.querySelector("input").valueAsNumber;
    const turn = (isOn) => (isOn ? chosen.set(id, Number.isNaN(given()) ? weight : given()) : chosen.delete(id));
    const box = el("input", { type: "checkbox", checked: chosen.has(id), onchange: (event) => (turn(event.target.checked), tell()) });
    return el("div", { class: "pair" }, el("label", { class: "check" }, box, id), amount);
  });
  return rows.length ? [el("fieldset", { class: "stack" }, el("legend", {}, "Adapters"), ...rows)] : [];
}

/** Seconds on a slider, with the stretch that the model was trained on marked. */
export function durationField(model, value, oninput) {
  const [low, high] = [model.min_duration_s, model.max_duration_s];
  const trained = model.trained_duration_s ?? [model.default_duration_s, model.default_duration_s];
  const control = el("input", { type: "range", min: low, max: high, step: 0.1, value });
  const shown = el("output", { class: "clock" }, `${Number(value).toFixed(1)} s`);
  control.addEventListener("input", () => {
    shown.textContent = `${control.valueAsNumber.toFixed(1)} s`;
    oninput(control.valueAsNumber);
  });
  const span = high - low || 1;
  const mark = el("i");
  mark.style.setProperty("--from", Math.max(0, (trained[0] - low) / span - 0.006));
  mark.style.setProperty("--to", Math.min(1, (trained[1] - low) / span + 0.006));
  const beyond = high > model.window_s ? ` Beyond ${model.window_s} s it goes on in windows that overlap.` : "";
  const hint = (trained[0] === trained[1] ? `Trained on ${trained[0]} s; other lengths may sound worse.` : `Trained on ${trained[0]} to ${trained[1]} s.`) + beyond;
  const element = field("Duration", control, hint);
  element.insertBefore(el("div", { class: "trained", "aria-hidden": "true" }, mark), element.lastChild);
  element.firstChild.append(" ", shown);
  return element;
}

const quote = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
const python = (text) => JSON.stringify(text);

/** Files of the adapters in a model's name, as they are called here. */
const filesOf = (name) => [...adaptersIn(name)].map(([id, weight]) => `${id}.safetensors:${weight}`);
const baseOf = (name) => String(name).split("+")[0];

/** What a sound has unless it is said. */
const USUAL = { solver: "euler", guidance_low: 0, guidance_high: 1, time_shift: 1 };
/** What is done to a sound in the end, as the command line calls it. */
const FINISHES = { trim_db: "--trim", length_s: "--length", fade_s: "--fade", loudness_lufs: "--loudness", normalize_db: "--normalize" };

/** Settings of a sound that have no field on the screens, where they are not the usual ones. */
export const further = (sound) => Object.fromEntries(Object.keys(USUAL).filter((name) => (sound[name] ?? USUAL[name]) !== USUAL[name]).map((name) => [name, sound[name]]));

/** The same sound from elsewhere. */
export function asCommand(sound) {
  const settings = Object.entries(sound.further).map(([name, value]) => ` --${name.replaceAll("_", "-")} ${value}`).join("");
  const finish = Object.entries(sound.finish).map(([name, value]) => ` ${FINISHES[name]} ${value}`).join("");
  const negative = sound.negative ? ` --negative ${quote(sound.negative)}` : "";
  const adapters = filesOf(sound.model).map((file) => ` --adapter ${quote(file)}`).join("");
  return `resonate ${sound.made === "loop" ? "loop" : "generate"} ${quote(sound.prompt)}${negative} --model ${quote(baseOf(sound.model))}${adapters} --duration ${sound.length} --steps ${sound.steps} --guidance ${sound.guidance}${settings} --seed ${sound.seed}${finish}`;
}

export function asPython(sound) {
  const negative = sound.negative ? `\n    negative_prompt=${python(sound.negative)},` : "";
  const files = filesOf(sound.model);
  const settings = Object.entries(sound.further).map(([name, value]) => `\n    ${name}=${python(value)},`).join("");
  const finish = Object.entries(sound.finish).map(([name, value]) => `${name}=${value}`).join(", ");
  const imports = finish ? "from resonate_audio import Finish, Resonate\nfrom resonate_audio.audio.finish import finish_sound" : "from resonate_audio import Resonate";
  return `${imports}

resonate = Resonate.from_pretrained(${python(baseOf(sound.model))}${files.length ? `, adapters=${python(files)}` : ""})
[audio] = resonate.${sound.made === "loop" ? "loop" : "generate"}(
    ${python(sound.prompt)},${negative}
    duration_s=${sound.length},
    num_inference_steps=${sound.steps},
    guidance_scale=${sound.guidance},${settings}
    seeds=${sound.seed},
)
${finish ? `audio = finish_sound(audio, Finish(${finish}))\n` : ""}`;
}

export function asCurl(sound) {
  const { seeds, ...body } = toRequest({ ...sound, duration: sound.length, loop: sound.made === "loop" }, []);
  const address = new URL("v1/audio/generate", location.href).href;
  const asked = JSON.stringify({ ...body, ...sound.further, ...sound.finish, seed: sound.seed });
  const secret = key.get() ? ` -H "Authorization: Bearer $RESONATE_API_KEY"` : "";
  return `curl ${quote(address)}${secret} -H 'Content-Type: application/json' -d ${quote(asked)} -o sound.wav`;
}
