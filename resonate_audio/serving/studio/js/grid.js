// Grid: prompts by seeds and models, all at once.

import { listModels, makeSounds, zipOf } from "./api.js";
import { describeSound, editLink } from "./card.js";
import { el, empty, field, fileName, heading, note, save } from "./dom.js";
import { Player } from "./player.js";
import { loadSettings, solverFields, toRequest } from "./settings.js";
import { underBar } from "./work.js";

const MAX_CELLS = 60;

export async function grid(screen) {
  // A model with an adapter is one more column.
  const models = (await listModels()).flatMap((model) => [model, ...model.adapters.map(({ id }) => ({ ...model, id: `${model.id}+${id}` }))]);
  const kept = loadSettings();
  const state = { prompts: kept.prompt || "a dog barks twice\nrain on a roof", seeds: "1 2 3", models: new Set([models[0].id]), steps: null, guidance: null };
  const place = el("div", { class: "stack" }, empty("An empty grid", "Every prompt is made with every seed by every model you choose: a quick way to see what a model can do."));
  const button = el("button", { class: "main" }, "Fill the grid");
  const seeds = el("input", { type: "text", required: true, pattern: "\\s*\\d{1,15}([\\s,]+\\d{1,15})*[\\s,]*", value: state.seeds, oninput: (event) => (state.seeds = event.target.value) });
  const form = el(
    "form",
    { class: "panel", "aria-label": "What is in the grid" },
    field("Prompts, one a line", el("textarea", { required: true, rows: 4, value: state.prompts, oninput: (event) => (state.prompts = event.target.value) })),
    field("Seeds", seeds, "Whole numbers with spaces between them."),
    modelChoice(models, state),
    el(
      "div",
      { class: "pair" },
      ...solverFields(state, (name) => (value) => (state[name] = value), models.length === 1 ? models[0] : null),
    ),
    el("div", { class: "actions" }, button),
  );
  let players = [];
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    players.forEach((player) => player.destroy());
    players = [];
    button.disabled = true;
    await fill(plan(state, models), state, place, players);
    button.disabled = false;
  });
  screen.append(
    heading("Grid", "Prompts by seeds and models. One row is one prompt; one column is one noise and one model."),
    el("div", { class: "work" }, form, el("div", { class: "stack" }, place)),
  );
  return { refresh: () => undefined };
}

function modelChoice(models, state) {
  const boxes = models.map((model) => {
    const box = el("input", { type: "checkbox", checked: state.models.has(model.id) });
    box.addEventListener("change", () => (box.checked ? state.models.add(model.id) : state.models.delete(model.id)));
    return el("label", { class: "check" }, box, model.id);
  });
  return el("fieldset", {}, el("legend", {}, "Models"), ...boxes);
}

function plan(state, models) {
  const prompts = [...new Set(state.prompts.split("\n").map((line) => line.trim()).filter(Boolean))];
  const seeds = [...new Set(state.seeds.split(/[\s,]+/).filter(Boolean).map(Number))];
  const chosen = models.filter((model) => state.models.has(model.id));
  return { prompts, seeds, models: chosen };
}

async function fill({ prompts, seeds, models }, state, place, players) {
  const count = prompts.length * seeds.length * models.length;
  if (!count || count > MAX_CELLS) {
    place.replaceChildren(note(count ? `${count} sounds: ${MAX_CELLS} at most at once.` : "Choose a prompt, a seed and a model at least.", true));
    return;
  }
  const cells = drawTable({ prompts, seeds, models }, place);
  const ids = [];
  // What is still to be made: who tries again goes on there, with the job that was begun.
  const open = prompts.flatMap((prompt, row) => models.map((model) => ({ prompt, row, model, wanted: toRequest({ ...state, prompt, negative: "", model: model.id, duration: model.default_duration_s }, seeds) })));
  await underBar(`${count} sounds`, async (onStep, signal) => {
    while (open.length) {
      const [{ prompt, row, model, wanted }] = open;
      const told = (done, total) => onStep(done, total, `row ${row + 1} of ${prompts.length}, `);
      for (const sound of await makeSounds(wanted, told, signal)) {
        const player = new Player(sound.blob, { label: `${prompt}, ${model.id}, seed ${sound.seed}` });
        players.push(player);
        ids.push(sound.id);
        showSound(cells.get(`${row} ${model.id} ${sound.seed}`), sound, prompt, player);
        cells.delete(`${row} ${model.id} ${sound.seed}`);
      }
      open.shift();
    }
  }, () => ids.length);
  cells.forEach((cell) => (cell.textContent = "not made"));
  if (ids.length) place.append(packButton(ids));
}

function showSound(cell, sound, prompt, player) {
  const known = describeSound(sound);
  const download = el("a", { class: "copy", href: player.audio.src, download: fileName(known), "aria-label": `Download: ${prompt}, seed ${sound.seed}` }, "Download");
  cell.replaceChildren(player.element, el("p", { class: "row marks" }, download, editLink(known)));
}

/** All sounds of the grid in one file. */
function packButton(ids) {
  const told = el("span", { role: "status" });
  const button = el("button", { type: "button", class: "plain" }, "Download all");
  button.addEventListener("click", async () => {
    try {
      save(await zipOf(ids), "grid.zip");
      told.textContent = "";
    } catch (error) {
      told.textContent = error.message;
    }
  });
  return el("div", { class: "row" }, button, told);
}

function drawTable({ prompts, seeds, models }, place) {
  const columns = models.flatMap((model) => seeds.map((seed) => [model.id, seed]));
  const cells = new Map();
  const rows = prompts.map((prompt, row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, prompt),
      ...columns.map(([model, seed]) => {
        const cell = el("div", { class: "cell soft" }, "waiting");
        cells.set(`${row} ${model} ${seed}`, cell);
        return el("td", {}, cell);
      }),
    ),
  );
  const heads = columns.map(([model, seed]) => el("th", { scope: "col" }, models.length > 1 ? `${model}, seed ${seed}` : `seed ${seed}`));
  const table = el("table", { class: "grid-table" }, el("caption", {}, "Sounds by prompt, seed and model"), el("thead", {}, el("tr", {}, el("td"), ...heads)), el("tbody", {}, ...rows));
  place.replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Grid of sounds" }, table));
  return cells;
}
