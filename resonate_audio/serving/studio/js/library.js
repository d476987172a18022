// Library: every sound that was made, to be found, heard and taken up again.

import { getJson, request, soundOf } from "./api.js";
import { describeSound, factsOf, reuse, soundCard } from "./card.js";
import { announce, el, empty, field, heading, loading, note } from "./dom.js";

const PAGE = 20;

export async function library(screen) {
  const list = el("div", { class: "stack" });
  const more = el("div");
  const search = el("input", { type: "search", maxlength: 200, placeholder: "words, a model, or a seed" });
  const state = { query: "", cards: [], asked: 0 };
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      state.query = search.value;
      load(state, list, more, true);
    }, 250);
  });
  screen.append(heading("Library", "Every sound this server has made, with all its settings."), el("div", { class: "stack" }, field("Search", search), list, more));
  await load(state, list, more, true);
  return () => {
    clearTimeout(timer);
    destroy(state);
  };
}

function destroy(state) {
  state.cards.forEach((card) => card.player?.destroy());
  state.cards = [];
}

async function load(state, list, more, fresh) {
  const turn = (state.asked += 1);
  if (fresh) {
    destroy(state);
    list.replaceChildren(loading("Loading the library"));
  }
  more.replaceChildren();
  try {
    const query = new URLSearchParams({ q: state.query, limit: PAGE, offset: state.cards.length });
    const found = await getJson(`v1/library?${query}`);
    if (turn !== state.asked) return;
    if (fresh) list.replaceChildren();
    const cards = found.data.map((sound) => shelfCard(describeSound(sound), state));
    state.cards.push(...cards);
    list.append(...cards);
    if (!state.cards.length) list.replaceChildren(nothing(state.query));
    announce(`${found.total} sounds`);
    if (state.cards.length < found.total) more.replaceChildren(el("button", { type: "button", class: "plain", onclick: () => load(state, list, more, false) }, "Show more"));
  } catch (error) {
    list.replaceChildren(note(error.message, true));
  }
}

function nothing(query) {
  if (query) return empty("Nothing found", `No sound was made from “${query}”.`);
  return empty("The library is empty", "Sounds you make are kept here.", el("a", { class: "plain", href: "#/generate" }, "Make the first one"));
}

/** A card without its sound, which is fetched when it is wanted. */
function shelfCard(sound, state) {
  const open = el("button", { type: "button", class: "plain", "aria-label": `Open: ${sound.prompt}` }, "Open");
  const again = el("button", { type: "button", class: "copy", onclick: () => reuse(sound) }, "Use these settings");
  const when = sound.made ? ` · ${sound.made.toLocaleString()}` : "";
  const card = el("article", { class: "card sound-card" }, el("header", {}, el("h3", {}, sound.prompt), open), el("p", { class: "facts-line" }, factsOf(sound) + when), el("footer", {}, again, removeButton(sound, () => card.remove())));
  open.addEventListener("click", async () => {
    open.disabled = true;
    try {
      const full = soundCard(sound, await soundOf(sound), [el("button", { type: "button", class: "copy", onclick: () => reuse(sound) }, "Use these settings")]);
      state.cards[state.cards.indexOf(card)] = full;
      card.replaceWith(full);
      full.player.button.focus();
    } catch (error) {
      open.disabled = false;
      card.append(note(error.message, true));
    }
  });
  return card;
}

function removeButton(sound, gone) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Delete: ${sound.prompt}` }, "Delete");
  button.addEventListener("click", async () => {
    if (button.textContent === "Delete") {
      button.textContent = "Really delete";
      return;
    }
    await request(`v1/library/${encodeURIComponent(sound.id)}`, { method: "DELETE" });
    announce("Deleted");
    gone();
  });
  return button;
}
