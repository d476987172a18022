// Compare: two models or settings, one noise, nobody knows which is which until the vote.

import { listModels, makeSounds } from "./api.js";
import { describeSound, editLink, factsOf } from "./card.js";
import { el, empty, field, fileName, heading, redraw } from "./dom.js";
import { Player } from "./player.js";
import { adapterFields, loadSettings, modelField, modelOf, number, randomSeed, solverFields, toRequest } from "./settings.js";
import { underBar } from "./work.js";

const TALLY = "resonate-votes";

export async function compare(screen) {
  const models = await listModels();
  const kept = loadSettings();
  // Nothing else of the other screen: what is not on this one nobody expects to count here.
  const common = { prompt: kept.prompt, seed: kept.seed || randomSeed() };
  const sides = [0, 1].map((n) => ({ model: (models[n] ?? models[0]).id, steps: null, guidance: n && models.length < 2 && !models[0].guidance_inside ? 1 : null }));
  const place = el("div", { class: "stack" }, empty("Nothing to compare yet", "Both sounds start from the same noise; they are shown in a random order."));
  const prompt = el("textarea", { required: true, maxlength: 2000, rows: 3, value: common.prompt, oninput: (event) => (common.prompt = event.target.value) });
  const button = el("button", { class: "main" }, "Make both");
  const form = el(
    "form",
    { class: "panel", "aria-label": "What to compare" },
    field("What to hear", prompt),
    number("Seed of both", common.seed, { min: 0, max: 2 ** 53 - 1, oninput: (value) => (common.seed = value) }),
    ...sides.map((side, n) => sideFields(side, n, models)),
    el("div", { class: "actions" }, button),
    tallyLine(),
  );
  let players = [];
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const made = await makeBoth(common, sides, models);
    button.disabled = false;
    if (!made) return;
    players.forEach((player) => player.destroy());
    players = showBlind(place, made, form);
  });
  screen.append(
    heading("Compare", "Two models, or two settings of one, from the same noise. Switch while they play, vote, then see which was which."),
    el("div", { class: "work" }, form, el("div", { class: "stack" }, place)),
  );
  return { refresh: () => undefined };
}

function sideFields(side, n, models) {
  const name = ["First", "Second"][n];
  const other = (value) => {
    Object.assign(side, { model: value, steps: null, guidance: null });
    draw();
  };
  const fields = el("fieldset", { class: "stack" });
  const draw = () =>
    redraw(
      fields,
      el("legend", {}, name),
      modelField(models, side.model, other),
      ...adapterFields(models, side.model, (value) => (side.model = value)),
      el(
        "div",
        { class: "pair" },
        ...solverFields(side, (name) => (value) => (side[name] = value), modelOf(models, side.model)),
      ),
    );
  draw();
  return fields;
}

async function makeBoth(common, sides, models) {
  const chosen = sides.map((side) => modelOf(models, side.model));
  const duration = Math.min(...chosen.map((model) => model.default_duration_s));
  const wanted = sides.map((side) => toRequest({ ...common, negative: "", ...side, duration }, [common.seed]));
  const sounds = [];
  return underBar(common.prompt, async (onStep, signal) => {
    while (sounds.length < wanted.length) {
      const told = (done, total) => onStep(done, total, `sound ${sounds.length + 1} of 2, `);
      sounds.push(...(await makeSounds(wanted[sounds.length], told, signal)));
    }
    return sounds;
  }, () => sounds.length);
}

function showBlind(place, made, form) {
  const order = Math.random() < 0.5 ? [0, 1] : [1, 0];
  const sounds = order.map((n) => ({ ...made[n], facts: describeSound(made[n]), side: n }));
  const players = sounds.map((sound, n) => new Player(sound.blob, { label: `Sound ${"AB"[n]}`, spectrogram: true }));
  const cards = players.map((player, n) => {
    const told = el("p", { class: "facts-line" }, "Which one this is, you see after your vote.");
    const card = el("section", { class: "card sound-card", "aria-label": `Sound ${"AB"[n]}` }, el("h3", {}, `Sound ${"AB"[n]}`), player.element, told);
    card.reveal = () => {
      told.textContent = factsOf(sounds[n].facts);
      // Names of files tell which one it is: not before the vote.
      card.append(el("footer", {}, el("a", { href: player.audio.src, download: fileName(sounds[n].facts) }, "Download"), editLink(sounds[n].facts)));
    };
    return card;
  });
  shareHead(players);
  const switcher = el("button", { type: "button", class: "plain", onclick: () => switchOver(players) }, "Switch while it plays");
  place.replaceChildren(el("blockquote", { class: "prompt" }, sounds[0].facts.prompt), ...cards, el("div", { class: "row" }, switcher), ballot(sounds, cards, form));
  return players;
}

/** One playhead for both: it is where the one has it that was heard or moved last. */
function shareHead(players) {
  let leader = players[0];
  players.forEach((player, n) => {
    const other = players[1 - n];
    player.onstart = () => {
      if (leader !== player) player.audio.currentTime = leader.audio.ended ? 0 : Math.min(leader.audio.currentTime, player.length());
      leader = player;
    };
    player.onmove = () => {
      other.audio.currentTime = Math.min(player.audio.currentTime, other.length());
      if (other.audio.paused) leader = player;
    };
  });
}

function switchOver(players) {
  const next = players[players[0].audio.paused ? 0 : 1];
  next.play().catch((error) => next.fail(error));
}

function ballot(sounds, cards, form) {
  const row = el("div", { class: "panel", role: "group", "aria-label": "Your vote" }, el("h2", {}, "Which one is better?"));
  const vote = (choice) => {
    cards.forEach((card) => card.reveal());
    count(choice === null ? "tie" : sounds[choice].side ? "second" : "first");
    const words = choice === null ? "No difference, you say." : `You chose ${"AB"[choice]}, the ${sounds[choice].side ? "second" : "first"} one.`;
    row.replaceChildren(el("p", { role: "status" }, words));
    form.lastChild.replaceWith(tallyLine());
  };
  row.append(
    el(
      "div",
      { class: "row" },
      ...[[0, "A is better"], [null, "No difference"], [1, "B is better"]].map(([choice, label]) =>
        el("button", { type: "button", class: "plain", onclick: () => vote(choice) }, label),
      ),
    ),
  );
  return row;
}

const tally = () => ({ first: 0, tie: 0, second: 0, ...JSON.parse(localStorage.getItem(TALLY) ?? "{}") });

function count(side) {
  const votes = tally();
  votes[side] += 1;
  localStorage.setItem(TALLY, JSON.stringify(votes));
}

function tallyLine() {
  const votes = tally();
  const forget = () => {
    localStorage.removeItem(TALLY);
    line.replaceWith(tallyLine());
  };
  const text = `Votes in this browser: first ${votes.first}, no difference ${votes.tie}, second ${votes.second}.`;
  const line = el("p", { class: "facts-line" }, text, " ", el("button", { type: "button", class: "copy", onclick: forget }, "Start over"));
  return line;
}
