// Library: every sound that was made or brought in, to be found, heard, named and taken up again.

import { deleteSound, getJson, noteSound, soundOf, zipOf } from "./api.js";
import { describeSound, editLink, factsOf, loopSwitch, marks, reuse, soundCard, titleOf } from "./card.js";
import { announce, el, empty, field, fileName, heading, loading, note, save, select, toggle } from "./dom.js";
import { Player } from "./player.js";

const PAGE = 20;
const FORMATS = ["wav", "flac", "mp3", "ogg", "opus"];

export async function library(screen) {
  const list = el("div", { class: "stack" });
  const more = el("div");
  const search = el("input", { type: "search", maxlength: 200, placeholder: "words, #tag, a model, or a seed" });
  const state = { query: "", favourites: false, rows: [], asked: 0, chosen: new Map(), find: null };
  const chosen = el("div", { class: "chosen", hidden: true });
  let timer = 0;
  const fresh = () => load(state, list, more, true);
  search.addEventListener("input", () => {
    clearTimeout(timer);
    state.query = search.value;
    timer = setTimeout(fresh, 250);
  });
  state.find = (text) => {
    search.value = state.query = text;
    fresh();
  };
  state.choose = () => showChosen(state, chosen);
  const only = toggle("★ Favourites", false, (isOn) => ((state.favourites = isOn), fresh()));
  const top = el("div", { class: "row search" }, el("div", { class: "grow" }, field("Search", search)), only);
  screen.append(heading("Library", "Every sound that this server has made or was given, with all its settings."), el("div", { class: "stack" }, top, chosen, list, more));
  await fresh();
  return () => {
    clearTimeout(timer);
    state.rows.forEach((row) => row.player.destroy());
  };
}

async function load(state, list, more, isFresh) {
  const turn = (state.asked += 1);
  if (isFresh) {
    state.rows.forEach((row) => row.player.destroy());
    state.rows = [];
    list.replaceChildren(loading("Loading the library"));
  }
  more.replaceChildren();
  try {
    const query = new URLSearchParams({ q: state.query, limit: PAGE, offset: state.rows.length, favourite: state.favourites });
    const found = await getJson(`v1/library?${query}`);
    if (turn !== state.asked) return;
    if (isFresh) list.replaceChildren();
    const rows = found.data.map((sound) => shelfRow(describeSound(sound), state));
    state.rows.push(...rows);
    list.append(...rows);
    if (!state.rows.length) list.replaceChildren(nothing(state));
    announce(`${found.total} sounds`);
    if (state.rows.length < found.total) more.replaceChildren(el("button", { type: "button", class: "plain", onclick: () => load(state, list, more, false) }, "Show more"));
  } catch (error) {
    if (turn !== state.asked) return;
    const again = el("button", { type: "button", class: "plain", onclick: () => load(state, list, more, isFresh) }, "Try again");
    (isFresh ? list : more).replaceChildren(el("div", { class: "row" }, note(error.message, true), again));
  }
}

function nothing(state) {
  if (state.query) return empty("Nothing found", `No sound was made from “${state.query}”, is called or tagged so.`);
  if (state.favourites) return empty("No favourite yet", "The star of a sound makes it one.");
  return empty("The library is empty", "Sounds you make are kept here.", el("a", { class: "plain", href: "#/generate" }, "Make the first one"));
}

/** One sound: it plays in place; its file is fetched when it is first wanted. */
function shelfRow(sound, state) {
  const player = new Player(() => soundOf(sound), { label: titleOf(sound), tail: sound.tail, seconds: sound.duration });
  const box = el("input", { type: "checkbox", checked: state.chosen.has(sound.id), "aria-label": `Choose: ${titleOf(sound)}` });
  box.addEventListener("change", () => {
    if (box.checked) state.chosen.set(sound.id, sound);
    else state.chosen.delete(sound.id);
    state.choose();
  });
  const told = el("div", { role: "status" });
  const fail = (error) => told.replaceChildren(note(error.message, true));
  const star = el("button", { type: "button", class: "star", "aria-pressed": String(sound.favourite), "aria-label": `Favourite: ${titleOf(sound)}` }, "★");
  star.addEventListener("click", () => change(sound, { favourite: !sound.favourite }).then(() => star.setAttribute("aria-pressed", String(sound.favourite)), fail));
  const title = el("h3", {}, titleOf(sound));
  const row = el("article", { class: "card sound-card shelf" });
  const redraw = () => row.replaceWith(again(shelfRow(sound, state), row, state));
  const download = el("button", { type: "button", class: "copy", onclick: () => soundOf(sound).then((blob) => save(blob, fileName(sound)), fail) }, "Download");
  const open = el("button", { type: "button", class: "copy", "aria-label": `Open: ${titleOf(sound)}` }, "Open");
  open.addEventListener("click", async () => {
    try {
      const again = el("button", { type: "button", class: "copy", onclick: () => reuse(sound) }, "Use these settings");
      const full = soundCard(sound, await soundOf(sound), [sound.model && again]);
      player.destroy();
      state.rows[state.rows.indexOf(row)] = full;
      row.replaceWith(full);
      full.player.button.focus();
    } catch (error) {
      fail(error);
    }
  });
  const named = el("button", { type: "button", class: "copy", "aria-label": `Name and tags: ${titleOf(sound)}` }, "Name and tags");
  named.addEventListener("click", () => told.replaceChildren(nameForm(sound, redraw, fail)));
  const when = sound.created ? ` · ${sound.created.toLocaleString()}` : "";
  const known = marks(sound);
  known.querySelectorAll(".badge").forEach((badge) => badge.textContent.startsWith("#") && badge.replaceWith(tagButton(badge.textContent, state)));
  const use = sound.model && el("button", { type: "button", class: "copy", onclick: () => reuse(sound) }, "Use these settings");
  row.append(
    el("header", {}, box, title, star),
    player.element,
    known,
    el("p", { class: "facts-line" }, factsOf(sound) + when),
    el("footer", {}, open, editLink(sound), download, loopSwitch(player), named, use, removeButton(sound, () => gone(row, state, sound), fail)),
    told,
  );
  row.player = player;
  return row;
}

/** The row that another takes the place of goes, and with it what it plays. */
function again(fresh, old, state) {
  old.player.destroy();
  state.rows[state.rows.indexOf(old)] = fresh;
  return fresh;
}

function gone(row, state, sound) {
  row.player.destroy();
  row.remove();
  state.rows.splice(state.rows.indexOf(row), 1);
  state.chosen.delete(sound.id);
  state.choose();
}

const change = async (sound, changes) => Object.assign(sound, describeSound(await noteSound(sound.id, changes)));

const tagButton = (tag, state) => el("button", { type: "button", class: "badge", "aria-label": `Find ${tag}`, onclick: () => state.find(tag) }, tag);

function nameForm(sound, done, fail) {
  const name = el("input", { type: "text", maxlength: 200, value: sound.name, placeholder: sound.prompt });
  const tags = el("input", { type: "text", maxlength: 800, value: sound.tags.join(", ") });
  const form = el("form", { class: "pair" }, field("Name", name, "It becomes the file's name."), field("Tags", tags, "Commas between them."), el("div", {}, el("button", { class: "plain" }, "Keep")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = tags.value.split(",").map((tag) => tag.trim().replace(/^#/, "").replace(/\s+/g, "-")).filter(Boolean);
    try {
      await change(sound, { name: name.value.trim(), tags: [...new Set(words)] });
      announce("Kept");
      done();
    } catch (error) {
      fail(error);
    }
  });
  setTimeout(() => name.focus());
  return form;
}

/** What is chosen, and the file that holds it all. */
function showChosen(state, place) {
  const { chosen } = state;
  place.hidden = !chosen.size;
  if (!chosen.size) return;
  const told = el("span", { role: "status" });
  const format = select(FORMATS.map((name) => [name, name.toUpperCase()]), "wav", { "aria-label": "Format" });
  const pack = el("button", { type: "button", class: "main" }, "Download zip");
  pack.addEventListener("click", async () => {
    pack.disabled = true;
    try {
      save(await zipOf([...chosen.keys()], format.value), "sounds.zip");
      told.textContent = "";
    } catch (error) {
      told.textContent = error.message;
    }
    pack.disabled = false;
  });
  const none = () => {
    chosen.clear();
    state.rows.forEach((row) => row.querySelectorAll('header input[type="checkbox"]').forEach((box) => (box.checked = false)));
    showChosen(state, place);
  };
  place.replaceChildren(el("div", { class: "panel row" }, el("b", { class: "grow" }, `${chosen.size} chosen`), format, pack, el("button", { type: "button", class: "plain", onclick: none }, "Choose none"), told));
}

function removeButton(sound, removed, fail) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Delete: ${titleOf(sound)}` }, "Delete");
  button.addEventListener("click", async () => {
    if (button.textContent === "Delete") {
      button.textContent = "Really delete";
      return;
    }
    try {
      await deleteSound(sound.id);
      announce("Deleted");
      removed();
    } catch (error) {
      fail(error);
    }
  });
  return button;
}
