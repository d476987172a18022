// Runs: how a training goes, and how its best and worst takes sound.

import { getBlob, getJson } from "./api.js";
import { digits, lineChart } from "./chart.js";
import { el, empty, heading, note } from "./dom.js";
import { Player } from "./player.js";

const SECTIONS = [
  ["Reward", (name) => /^(reward|held_out|evaluation)\//.test(name)],
  ["Sound checks", (name) => name.startsWith("detect/")],
  ["Policy", (name) => /^(kl|velocity_kl|ratio|clip|advantage|loss|grad_norm|learning_rate)/.test(name)],
  ["Time", (name) => name.startsWith("seconds/") || name === "steps_per_s"],
  ["Other numbers", () => true],
];
const NAMES = {
  "reward/mean": "Training reward",
  "reward/std": "Spread within a prompt",
  kl: "Distance from the first model",
  "detect/clipped_share": "Clipping",
  "detect/silent_share": "Silence",
  "detect/loudness_lufs": "Loudness (LUFS)",
  "detect/energy_above_8k_share": "Energy above 8 kHz",
  "detect/diversity_db": "Diversity (dB)",
};
const FACTS = { model: "Model", "algorithm.kind": "Algorithm", reward: "Judge", "evaluation.held_out": "Held-out judge", prompts_per_step: "Prompts per step", takes: "Takes per prompt" };
const TAKES_SHOWN = 12;

export async function runs(screen, id) {
  if (id) return openRun(screen, id);
  screen.append(heading("Runs", "Trainings under the folder that was given with --runs, the newest first."));
  const { data, is_given: isGiven } = await getJson("v1/runs");
  if (!isGiven) screen.append(empty("No folder of runs", "Start the studio with --runs FOLDER to see the trainings in it."));
  else if (!data.length) screen.append(empty("No run yet", "As soon as a training writes its first numbers, it shows up here."));
  else screen.append(el("ul", { class: "list" }, ...data.map(line)));
  return null;
}

function line(run) {
  const changed = new Date(run.changed * 1000).toLocaleString();
  if (run.problem) return el("li", {}, el("div", {}, el("b", {}, run.name), note(run.problem, true)));
  return el("li", {}, el("a", { href: `#/runs/${run.id}` }, el("b", {}, run.name), el("span", { class: "soft" }, run.summary), el("small", {}, `last written ${changed}`)));
}

async function openRun(screen, id) {
  const run = await getJson(`v1/runs/${encodeURIComponent(id)}`);
  const players = [];
  screen.append(
    heading(run.name, run.summary),
    el("div", { class: "stack" }, el("a", { class: "plain back", href: "#/runs" }, "All runs"), facts(run), ...run.warnings.map((text) => note(text, true)), ...charts(run), ...takes(run, players), recipe(run)),
  );
  return () => players.forEach((player) => player.destroy());
}

const rank = (name) => (name === "reward/mean" ? 0 : name.startsWith("held_out/") ? 1 : 2);

function titleOf(name) {
  const [group, rest] = name.split(/\/(.*)/s);
  const titles = { held_out: "Held-out judge: ", evaluation: "Training judge, new prompts: ", reward: "Part of the reward: " };
  return NAMES[name] ?? (titles[group] && rest ? titles[group] + rest : name.replaceAll("_", " "));
}

function facts(run) {
  const items = Object.entries(run.facts).map(([name, value]) => el("div", {}, el("dt", {}, FACTS[name] ?? name), el("dd", {}, value)));
  return items.length ? el("dl", { class: "facts" }, ...items) : null;
}

function charts(run) {
  const left = new Set(Object.keys(run.series));
  if (!left.size) return [empty("No numbers yet", "The run has not logged a step.")];
  return SECTIONS.flatMap(([title, belongs]) => {
    const names = [...left].filter(belongs);
    names.forEach((name) => left.delete(name));
    names.sort((one, other) => rank(one) - rank(other));
    const figures = names.map((name) => lineChart(titleOf(name), run.series[name]));
    return figures.length ? [el("h2", { class: "section-title" }, title), el("div", { class: "chart-grid" }, ...figures)] : [];
  });
}

function takes(run, players) {
  if (!run.takes.length) return [];
  const cards = run.takes.map((take) => takeCard(run, take, players));
  const list = el("div", { class: "cards" }, ...cards.slice(0, TAKES_SHOWN));
  const rest = cards.slice(TAKES_SHOWN);
  const more = el("button", { type: "button", class: "plain" }, `Show ${rest.length} earlier takes`);
  more.addEventListener("click", () => {
    list.append(...rest);
    more.remove();
  });
  return [el("h2", { class: "section-title" }, "Best and worst takes"), list, rest.length ? more : null].filter(Boolean);
}

function takeCard(run, take, players) {
  const parts = Object.entries(take.parts).map(([name, value]) => `${name} ${digits(value)}`);
  const head = el("header", {}, el("h3", {}, take.prompt), el("span", { class: `badge ${take.kind === "best" ? "best" : "worst"}` }, take.kind));
  const card = el("article", { class: "card sound-card" }, head, el("p", { class: "facts-line" }, [`step ${take.step}`, `reward ${digits(take.reward)}`, ...parts].join(" · ")));
  if (!take.has_sound) {
    card.append(el("p", { class: "facts-line" }, "The sound is not there any more."));
    return card;
  }
  const open = el("button", { type: "button", class: "plain", "aria-label": `Listen: ${take.kind} of step ${take.step}, ${take.prompt}` }, "Listen");
  open.addEventListener("click", async () => {
    open.disabled = true;
    try {
      const player = new Player(await getBlob(`v1/runs/${run.id}/takes/${take.id}`), { label: take.prompt, spectrogram: true });
      players.push(player);
      open.replaceWith(player.element);
      player.play();
    } catch (error) {
      open.replaceWith(note(error.message, true));
    }
  });
  card.append(el("div", { class: "row" }, open));
  return card;
}

function recipe(run) {
  return run.recipe ? el("details", {}, el("summary", {}, "Recipe"), el("pre", { tabindex: 0, "aria-label": "Recipe" }, run.recipe)) : null;
}
