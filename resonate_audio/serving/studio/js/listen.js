// The page of a rater: one clip or pair after the other, in the rater's own order.
//
// The address ends in #TEST or #TEST.TOKEN. What comes after # is never sent to a server by the
// browser. Finished pages are on the server at once; the page one is at is kept in this browser.

import { announce, el, empty, loading, note } from "./dom.js";
import { Player, silence } from "./player.js";

const screen = document.getElementById("screen");
const [test] = decodeURIComponent(location.hash.slice(1)).split(".");
const KEY = `resonate-listening-${test}`;
/** A page may lie open for days; the server believes no answer that took longer than one. */
const MOST_MS = 86_400_000;
let players = [];

async function call(path, { method = "GET", body = null } = {}) {
  const headers = { "X-Rater-Token": token() };
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(`v1/listening/${path}`, { method, headers, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw Object.assign(new Error(told.error?.message ?? `the server answered ${response.status}`), { status: response.status });
}

function personal() {
  const [, secret] = decodeURIComponent(location.hash.slice(1)).split(".");
  return secret ? `${test}.${secret}` : "";
}

const token = () => personal() || (localStorage.getItem(KEY) ?? "");

/** Where unsent answers lie: by a part of the token, since several raters may share a browser. */
const draftKey = () => `${KEY}-draft-${token().slice(-8)}`;

function show(...content) {
  players.forEach((player) => player.destroy());
  players = [];
  screen.replaceChildren(...content.filter(Boolean));
  scrollTo(0, 0);
}

async function start() {
  show(loading("Loading the listening test"));
  try {
    if (!test) return show(empty("No test in this address", "Open the link that you were sent."));
    if (!token()) return greet(await (await call(`tests/${encodeURIComponent(test)}`)).json());
    welcome(await (await call("session")).json());
  } catch (error) {
    if (error.status === 401 && !personal()) joinAnew().catch((other) => fail(other, start));
    else fail(error, start);
  }
}

/** The test is there, but knows nothing of the token that was kept here: it was made anew. */
async function joinAnew() {
  const page = await (await call(`tests/${encodeURIComponent(test)}`)).json();
  localStorage.removeItem(draftKey());
  localStorage.removeItem(KEY);
  announce("This test was made anew; begin again.");
  greet(page);
}

function fail(error, again) {
  silence();
  const retry = el("button", { type: "button", class: "main", onclick: again }, "Try again");
  show(empty("That did not work", error.message, retry));
}

function greet(page) {
  if (!page.is_open) return show(empty(page.title, "This test is by invitation. Open the link that you were sent."));
  const begin = async () => {
    try {
      const joined = await (await call(`tests/${encodeURIComponent(test)}/raters`, { method: "POST" })).json();
      localStorage.setItem(KEY, joined.token);
      render(await (await call("session")).json());
    } catch (error) {
      fail(error, start);
    }
  };
  show(...introduction(page, "Begin", begin));
}

function welcome(page) {
  if (page.done && page.trial) announce(`Going on at page ${page.done + 1} of ${page.total}`);
  if (page.done || !page.trial) return render(page);
  show(...introduction(page, "Begin", () => render(page)));
}

function introduction(page, label, onclick) {
  return [
    el("h1", {}, page.title),
    el("p", { class: "lead" }, page.instructions),
    el(
      "ul",
      { class: "rules" },
      el("li", {}, "Listen to each sound to its end; then the answers open."),
      el("li", {}, "There is no right answer. Say what you hear."),
      el("li", {}, "You can close the page at any time and go on later in this browser."),
      el("li", {}, "Nothing is kept of you but a random number, your answers and how long they took."),
    ),
    el("button", { type: "button", class: "main", onclick }, label),
  ];
}

async function render(page) {
  if (!page.trial) return finish(page);
  show(loading("Loading the next sound"));
  try {
    const blobs = [];
    for (let side = 0; side < page.trial.num_clips; side += 1) {
      blobs.push(await (await call(`session/trials/${page.trial.number}/clips/${side}`)).blob());
    }
    renderTrial(page, blobs);
  } catch (error) {
    fail(error, start);
  }
}

function finish(page) {
  localStorage.removeItem(draftKey());
  show(empty("Thank you", `All ${page.total} pages of “${page.title}” are answered. You may close this page.`));
  announce("All pages are answered. Thank you.");
}

function renderTrial(page, blobs) {
  const { trial } = page;
  const state = { heard: new Set(), started: null, answers: draft(trial.number) };
  const form = el("form", { class: "card questions" });
  const submit = el("button", { class: "main", disabled: true }, "Next");
  const hint = el("p", { class: "soft", id: "hint" }, "Listen to the end first.");
  const refresh = () => {
    const open = state.heard.size === blobs.length;
    form.querySelectorAll("fieldset").forEach((set) => (set.disabled = !open));
    const complete = open && isComplete(trial, state.answers);
    submit.disabled = !complete;
    hint.textContent = complete ? "" : open ? "Choose an answer to each question." : "Listen to the end first.";
  };
  const sounds = blobs.map((blob, side) => soundCard(blob, side, trial, state, refresh));
  form.append(...questions(trial, state, refresh), el("div", { class: "row" }, submit, hint));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(trial, state, submit);
  });
  show(progress(page), trial.prompt === null ? null : el("blockquote", { class: "prompt" }, trial.prompt), ...sounds, form);
  players = sounds.map((sound) => sound.player);
  refresh();
  sounds[0].player.button.focus();
}

function progress(page) {
  const label = `Page ${page.done + 1} of ${page.total}`;
  return el(
    "div",
    { class: "progress-row" },
    el("h1", { class: "small" }, label),
    el("progress", { max: page.total, value: page.done, "aria-label": label }),
  );
}

function soundCard(blob, side, trial, state, refresh) {
  const name = trial.compares ? `Sound ${"AB"[side]}` : "The sound";
  const player = new Player(blob, {
    label: name,
    seekable: false,
    onended: () => {
      state.heard.add(side);
      player.seek.disabled = false;
      announce(`${name}: heard to the end`);
      refresh();
    },
  });
  player.audio.addEventListener("play", () => (state.started ??= performance.now()));
  const card = el("section", { class: "card listen", "aria-label": name }, trial.compares && el("h2", {}, name), player.element);
  card.player = player;
  return card;
}

function questions(trial, state, refresh) {
  const choose = (name, value) => {
    state.answers[name] = value;
    localStorage.setItem(draftKey(), JSON.stringify({ number: trial.number, answers: state.answers }));
    refresh();
  };
  if (trial.compares) {
    const options = [["A", "Sound A"], ["same", "No difference"], ["B", "Sound B"]];
    return [scale("choice", trial.axes[0].question, options, state, choose)];
  }
  return trial.axes.map((axis) => {
    const values = Array.from({ length: axis.high - axis.low + 1 }, (_, n) => axis.low + n);
    const set = scale(axis.name, axis.question, values.map((value) => [value, String(value)]), state, choose);
    set.append(el("div", { class: "ends" }, el("span", {}, axis.low_label), el("span", {}, axis.high_label)));
    return set;
  });
}

function scale(name, question, options, state, choose) {
  const buttons = options.map(([value, label]) =>
    el(
      "label",
      {},
      el("input", { type: "radio", name, value, checked: state.answers[name] === value, onchange: () => choose(name, value) }),
      el("span", {}, label),
    ),
  );
  return el("fieldset", {}, el("legend", {}, question), el("div", { class: "scale" }, ...buttons));
}

function isComplete(trial, answers) {
  return trial.compares ? "choice" in answers : trial.axes.every((axis) => axis.name in answers);
}

function draft(number) {
  const kept = JSON.parse(localStorage.getItem(draftKey()) ?? "null");
  return kept?.number === number ? kept.answers : {};
}

async function send(trial, state, submit) {
  submit.disabled = true;
  const { choice = null, ...scores } = state.answers;
  const body = { trial: trial.number, scores, choice, ms: Math.min(performance.now() - state.started, MOST_MS) };
  try {
    render(await (await call("session/answers", { method: "POST", body })).json());
  } catch (error) {
    if (error.status === 409 || error.status === 401) return start();
    submit.disabled = false;
    screen.append(note(`Not sent: ${error.message}`, true));
  }
}

addEventListener("hashchange", () => location.reload());
start();
