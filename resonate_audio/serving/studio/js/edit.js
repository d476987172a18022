// Edit: a sound is varied, reworded, mended, extended, closed to a loop, finished.

import { findSound, finishSound, getJson, listModels, makeSounds, soundOf, takeIn } from "./api.js";
import { describeSound, factsOf, loopSwitch, marks, prependCards, soundCard, titleOf } from "./card.js";
import { announce, el, empty, field, heading, loading, redraw, select, toggle } from "./dom.js";
import { Player } from "./player.js";
import { adapterFields, knownModel, modelField, modelOf, number, randomSeed, solverFields } from "./settings.js";
import { sequenceBench } from "./sequence.js";
import { Timeline } from "./timeline.js";
import { underBar } from "./work.js";

const TOOLS = { vary: "Variations", reword: "Reword", replace: "Replace", extend: "Extend", loop: "Loop", finish: "Finish" };
const ACTIONS = { vary: "Make variations", reword: "Reword", replace: "Replace the stretch", extend: "Extend", loop: "Close to a loop", finish: "Finish" };
const RECENT = 6;
const SEQUENCE = "sequence";

/** Put a file into the library and open it here. */
export async function bringIn(file) {
  const kept = await underBar(`Bringing in ${file.name}`, () => takeIn(file));
  if (kept) location.hash = `#/edit/${encodeURIComponent(kept.id)}`;
}

export async function edit(screen, id) {
  const models = await listModels();
  const state = {
    models, sound: null, tool: "vary", model: models[0].id, prompt: "", was: "", strength: { vary: 0.5, reword: 0.8 }, takes: 4, others: 1, seeds: [], isSame: false, steps: null, guidance: null,
    times: { from: 0, to: 0, before: 0, after: 0, seam: 0.5 },
    finish: { trim: true, trim_db: -50, exact: false, length_s: 1, fade: false, fade_s: 0.05, level: "loudness_lufs", value: -16 },
  };
  const place = el("div");
  const results = el("div", { class: "stack", role: "region", "aria-label": "Made just now" });
  const ways = [["#/edit", "Work with a sound"], [`#/edit/${SEQUENCE}`, "Write a sequence"]].map(([href, label]) => el("a", { href }, label));
  let player = null;
  let [sequence, ownBench] = [null, null];
  let turn = 0;
  const open = async (wanted) => {
    const mine = (turn += 1);
    ways.forEach((way) => way.setAttribute("aria-current", (way.hash === `#/edit/${SEQUENCE}`) === (wanted === SEQUENCE) ? "page" : "false"));
    if (wanted === SEQUENCE) return place.replaceChildren((sequence ??= sequenceBench(models)));
    if (state.sound && (!wanted || state.sound.id === wanted)) return place.replaceChildren(ownBench);
    place.replaceChildren(loading("Loading the sound"));
    try {
      if (!wanted) {
        const zone = await dropZone();
        return mine === turn && place.replaceChildren(...zone);
      }
      const sound = describeSound(await findSound(wanted));
      const blob = await soundOf(sound);
      if (mine !== turn) return null;
      player?.destroy();
      player = new Player(blob, { label: titleOf(sound), tail: sound.tail });
      take(state, sound);
      ownBench = bench(state, player, results);
      place.replaceChildren(ownBench);
    } catch (error) {
      if (mine !== turn) return null;
      state.sound = null;
      const again = el("button", { type: "button", class: "main", onclick: () => open(wanted) }, "Try again");
      const told = empty("That did not work", error.message, again);
      told.setAttribute("role", "alert");
      place.replaceChildren(told);
    }
    return null;
  };
  screen.append(heading("Edit", "Make more like a sound, mend a part of it, let it go on, close it to a loop, trim and level it. Or write what is heard when."), el("nav", { class: "row ways", "aria-label": "Ways to work" }, ...ways), place);
  await open(id);
  return { refresh: open };
}

/** A place to drop a file on, and the newest sounds. */
async function dropZone() {
  const found = await getJson(`v1/library?limit=${RECENT}`);
  const recent = found.data.map(describeSound).map((sound) => el("li", {}, el("a", { href: `#/edit/${encodeURIComponent(sound.id)}` }, titleOf(sound), el("small", {}, factsOf(sound)))));
  const zone = empty("Drop a sound here", "WAV, FLAC, MP3, Ogg or Opus, of any rate. Or choose a file, or a sound that was made here.", el("p", {}, fileButton("Choose a file")));
  const list = recent.length ? [el("h2", { class: "section-title" }, "Made last"), el("ul", { class: "list" }, ...recent)] : [];
  return [el("div", { class: "stack" }, zone, ...list)];
}

function fileButton(label) {
  const control = el("input", { type: "file", class: "hidden", accept: "audio/*,.flac,.opus,.ogg,.wav", tabindex: -1, "aria-label": label });
  control.addEventListener("change", () => control.files.length && bringIn(control.files[0]));
  return el("span", { class: "file" }, control, el("button", { type: "button", class: "plain", onclick: () => control.click() }, label));
}

/** Another sound is worked on: what was said about the one before it does not fit. */
function take(state, sound) {
  state.sound = sound;
  Object.assign(state, { prompt: "", was: "" });
  const before = modelOf(state.models, state.model);
  state.model = knownModel(state.models, sound.model, state.model);
  if (modelOf(state.models, state.model) !== before) Object.assign(state, { steps: null, guidance: null });
  const third = sound.duration / 3;
  Object.assign(state.times, { from: third, to: 2 * third, before: 0, after: Math.min(2, Math.max(0, longest(state) - sound.duration)), seam: Math.min(0.5, sound.duration / 2) });
}

/** A model as its fields show it where a sound is changed. */
const inEdits = (model) => ({ ...model, default_steps: model.edit_steps });

const longest = (state) => modelOf(state.models, state.model).max_duration_s;

function bench(state, player, results) {
  const { sound } = state;
  const form = el("form", { class: "panel", "aria-label": "What to do" });
  const timeline = new Timeline(player, sound.duration, longest(state), state.times, () => form.show?.());
  const draw = () => {
    timeline.use(state.tool);
    redraw(form, ...controls(state, draw, form, timeline));
  };
  draw();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button.main");
    button.disabled = true;
    const made = state.tool === "finish" ? await finish(state) : await remake(state);
    form.querySelector("button.main").disabled = false;
    if (made) prependCards(results, [made]);
  });
  const head = el("div", { class: "row" }, el("h2", { class: "grow" }, titleOf(sound)), loopSwitch(player, { class: "plain" }), fileButton("Another file"));
  const source = el("section", { class: "panel source", "aria-label": "The sound" }, head, player.element, marks(sound), el("p", { class: "facts-line" }, factsOf(sound)));
  return el("div", { class: "work bench" }, form, source, results);
}

function controls(state, draw, form, timeline) {
  const tools = Object.entries(TOOLS).map(([tool, label]) => {
    const control = el("input", { type: "radio", name: "tool", value: tool, checked: tool === state.tool, onchange: () => ((state.tool = tool), draw()) });
    return el("label", {}, control, el("span", {}, label));
  });
  form.show = null;
  const own = { vary: strengthFields, reword: rewordFields, replace: replaceFields, extend: extendFields, loop: loopFields, finish: finishFields }[state.tool];
  return [
    el("fieldset", { class: "tools" }, el("legend", { class: "hidden" }, "What to do"), el("div", { class: "scale" }, ...tools)),
    ...own(state, form, timeline),
    ...(state.tool === "finish" ? [] : common(state, draw)),
    el("div", { class: "actions" }, el("button", { class: "main" }, ACTIONS[state.tool])),
  ];
}

/** What every tool takes that makes something new. */
function common(state, draw) {
  const isNew = state.tool === "reword";
  const prompt = el("input", { type: "text", required: isNew, maxlength: 2000, value: state.prompt, placeholder: isNew ? "what it shall be" : state.sound.prompt || "nothing in particular", oninput: (event) => (state.prompt = event.target.value) });
  return [
    field("What to hear", prompt, isNew ? "" : "Left empty: what the sound was made from, if it was."),
    el(
      "div",
      { class: "pair" },
      number("Sounds", state.tool === "vary" ? state.takes : state.others, { min: 1, max: 8, oninput: (value) => (state.tool === "vary" ? (state.takes = value) : (state.others = value)) }),
      modelField(state.models, state.model, (value) => (Object.assign(state, { model: value, steps: null, guidance: null }), draw())),
    ),
    el(
      "div",
      { class: "pair" },
      ...solverFields(state, (name) => (value) => (state[name] = value), inEdits(modelOf(state.models, state.model))),
    ),
    ...adapterFields(state.models, state.model, (value) => (state.model = value)),
    toggle("Same noise as before", state.isSame, (isOn) => (state.isSame = isOn)),
  ];
}

function rewordFields(state) {
  const was = el("input", { type: "text", maxlength: 2000, value: state.was, placeholder: state.sound.prompt || "nothing in particular", oninput: (event) => (state.was = event.target.value) });
  return [
    el("p", { class: "facts-line" }, "What both texts agree on stays: when it happens, how it goes. Only what they differ in is changed."),
    field("What it is", was, "Left empty: what the sound was made from, if it was."),
    ...strengthFields(state),
  ];
}

function strengthFields(state) {
  const { strength: all, tool } = state;
  const shown = el("output", { class: "clock" }, all[tool].toFixed(2));
  const control = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: all[tool] });
  control.addEventListener("input", () => {
    all[tool] = control.valueAsNumber;
    shown.textContent = all[tool].toFixed(2);
  });
  const strength = field("Strength", control, tool === "vary" ? "0 keeps the sound, 1 makes a free take." : "More changes more.");
  strength.firstChild.append(" ", shown);
  return [strength];
}

/** Two numbers of seconds that follow what is pulled in the picture, and move it. */
function seconds(form, timeline, names, labels, most, apply) {
  const fields = names.map((name, n) => number(labels[n], timeline.values[name].toFixed(2), { min: 0, max: most, step: 0.01 }));
  const inputs = fields.map((one) => one.querySelector("input"));
  inputs.forEach((control) => control.addEventListener("change", () => apply(...inputs.map((one) => one.valueAsNumber || 0), true)));
  form.show = () => inputs.forEach((control, n) => (control.value = timeline.values[names[n]].toFixed(2)));
  return el("div", { class: "pair" }, ...fields);
}

function replaceFields(state, form, timeline) {
  return [
    el("p", { class: "facts-line" }, "Pull over the waveform to choose the stretch that is made anew. Outside it not a bit changes."),
    seconds(form, timeline, ["from", "to"], ["From, s", "To, s"], Math.ceil(state.sound.duration * 100) / 100, (from, to, end) => timeline.select(from, to, end)),
  ];
}

function extendFields(state, form, timeline) {
  return [
    el("p", { class: "facts-line" }, "Pull the ends of the waveform outwards. The sound itself stays bit for bit."),
    seconds(form, timeline, ["before", "after"], ["Before, s", "After, s"], longest(state), (before, after, end) => timeline.extend(before, after, end)),
  ];
}

function loopFields(state, form, timeline) {
  const most = Math.floor(state.sound.duration * 90) / 100;
  const seam = number("Seam, s", state.times.seam.toFixed(2), { min: 0.05, max: most, step: 0.01, hint: "So much around the ends is made anew.", oninput: (value) => ((state.times.seam = value || 0), timeline.show(true)) });
  return [el("p", { class: "facts-line" }, "The end shall go on into the beginning. Loop, above the waveform, plays over the seam."), seam];
}

function finishFields(state) {
  const wanted = state.finish;
  const line = (name, label, value, limits) => {
    const box = el("input", { type: "checkbox", checked: wanted[name], onchange: (event) => (wanted[name] = event.target.checked) });
    return el("div", { class: "pair" }, el("label", { class: "check" }, box, label[0]), number(label[1], wanted[value], { ...limits, oninput: (given) => (wanted[value] = given) }));
  };
  const level = select([["", "As it is"], ["loudness_lufs", "Loudness, LUFS"], ["normalize_db", "True peak, dB"]], wanted.level);
  const amount = number("Level", wanted.value, { min: -60, max: 0, step: 0.5, oninput: (value) => (wanted.value = value) });
  const follow = () => amount.querySelector("input").toggleAttribute("disabled", !wanted.level);
  level.addEventListener("change", () => {
    wanted.level = level.value;
    wanted.value = level.value === "normalize_db" ? -1 : -16;
    amount.querySelector("input").value = wanted.value;
    follow();
  });
  follow();
  return [
    line("trim", ["Trim silence", "Below the loudest, dB"], "trim_db", { min: -120, max: -6 }),
    line("exact", ["Exact length", "Length, s"], "length_s", { min: 0.01, max: longest(state), step: 0.01 }),
    line("fade", ["Fade both ends", "Fade, s"], "fade_s", { min: 0, max: 60, step: 0.01 }),
    el("div", { class: "pair" }, field("Level to", level), amount),
  ];
}

/** What the server is asked for. */
function edited(state) {
  const { times, tool } = state;
  const own = {
    vary: { strength: state.strength.vary },
    reword: { strength: state.strength.reword, ...(state.was.trim() ? { source_prompt: state.was } : {}) },
    replace: { spans: [[times.from, times.to]] },
    extend: { before_s: times.before, after_s: times.after },
    loop: { seam_s: times.seam },
  }[tool];
  const takes = tool === "vary" ? state.takes : state.others;
  if (!state.isSame || state.seeds.length !== takes) state.seeds = Array.from({ length: takes }, randomSeed);
  return {
    ...(state.prompt.trim() ? { input: state.prompt } : {}),
    model: state.model,
    num_inference_steps: state.steps,
    guidance_scale: state.guidance,
    seeds: state.seeds,
    edit: { kind: tool, source: state.sound.id, ...own },
  };
}

/** Make something of the sound; gives what is shown of it. */
async function remake(state) {
  const { tool, sound, strength } = state;
  const wanted = edited(state);
  const label = `${TOOLS[tool]}: ${titleOf(sound)}`;
  const sounds = await underBar(label, (onStep, signal) => makeSounds(wanted, onStep, signal));
  if (!sounds) return null;
  const words = strength[tool] === undefined ? label : `${label}, strength ${strength[tool].toFixed(2)}`;
  return group(words, sounds.map((one) => soundCard(describeSound(one), one.blob)));
}

async function finish(state) {
  const { trim, trim_db, exact, length_s, fade, fade_s, level, value } = state.finish;
  const settings = { ...(trim && { trim_db }), ...(exact && { length_s }), ...(fade && { fade_s }), ...(level && { [level]: value }) };
  const label = `Finish: ${titleOf(state.sound)}`;
  const { id } = state.sound;
  const made = await underBar(label, async () => {
    const done = await finishSound(id, settings);
    return { ...done, blob: await soundOf(done) };
  });
  return made && group(label, [soundCard(describeSound(made), made.blob)]);
}

/** What came of one press of the button, side by side. */
function group(words, cards) {
  announce(words);
  const section = el("section", { class: "group", "aria-label": words }, el("h3", { class: "facts-line" }, words), el("div", { class: "side-by-side" }, ...cards));
  section.player = { destroy: () => cards.forEach((card) => card.player.destroy()) };
  return section;
}
