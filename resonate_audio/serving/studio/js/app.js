// Which screen is on, by the address after #.

import { ApiError, key } from "./api.js";
import { compare } from "./compare.js";
import { el, empty, field, loading, note } from "./dom.js";
import { bringIn, edit } from "./edit.js";
import { generate } from "./generate.js";
import { grid } from "./grid.js";
import { library } from "./library.js";
import { silence } from "./player.js";
import { runs } from "./runs.js";
import { tests } from "./tests.js";

const SCREENS = { generate: ["Generate", generate], edit: ["Edit", edit], compare: ["Compare", compare], grid: ["Grid", grid], library: ["Library", library], runs: ["Runs", runs], tests: ["Listening tests", tests] };
const place = document.getElementById("screen");
/** Screens that stay as they were left, with what was made there and what is still being made. */
const kept = new Map();
let turn = 0;
let leave = null;

async function show() {
  const [, name = "generate", rest = ""] = location.hash.split("/");
  const detail = decoded(rest);
  const known = SCREENS[name] ? name : "generate";
  const [title, draw] = SCREENS[known];
  const mine = (turn += 1);
  silence();
  leave?.();
  leave = null;
  document.title = `${title} · Resonate Studio`;
  markTab(known);
  const before = kept.get(known);
  if (before) {
    place.replaceChildren(before.element);
    scrollTo(0, 0);
    takeUp(before, detail).catch((error) => mine === turn && place.replaceChildren(problem(error)));
    return;
  }
  place.replaceChildren(loading(`Loading ${title}`));
  const fresh = el("div");
  let drawn = null;
  try {
    drawn = await draw(fresh, detail);
    if (drawn?.refresh) kept.set(known, { element: fresh, refresh: drawn.refresh });
  } catch (error) {
    fresh.replaceChildren(problem(error));
  }
  const left = typeof drawn === "function" ? drawn : null;
  if (mine !== turn) {
    left?.();
    return;
  }
  leave = left;
  place.replaceChildren(fresh);
  scrollTo(0, 0);
}

/** A kept screen hears what the address says now. */
const takeUp = async (screen, detail) => screen.refresh(detail);

/** What stands in an address; as it is, if it was never written by a browser. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function markTab(name) {
  const links = Object.entries(SCREENS).map(([id, [title]]) => el("a", { href: `#/${id}`, "aria-current": id === name ? "page" : null }, title));
  const tabs = document.getElementById("tabs");
  tabs.replaceChildren(...links);
  const current = tabs.querySelector("[aria-current]");
  tabs.scrollLeft = current.offsetLeft - (tabs.clientWidth - current.offsetWidth) / 2;
}

function problem(error) {
  if (error instanceof ApiError && error.status === 401) return askForKey();
  const again = el("button", { type: "button", class: "main", onclick: show }, "Try again");
  const shown = empty("That did not work", error.message, again);
  shown.setAttribute("role", "alert");
  return shown;
}

function askForKey() {
  const isWrong = key.get() !== "";
  const secret = el("input", { type: "password", required: true, autocomplete: "off" });
  const form = el("form", { class: "panel narrow-panel" }, el("h2", {}, "This server asks for a key"), field("Key", secret, "Kept until this tab is closed."), isWrong && note("That key is not the server's. Look for a missing or an extra sign.", true), el("button", { class: "main" }, "Go on"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(secret.value.trim());
    show();
  });
  return form;
}

// A file that is dropped anywhere is brought in.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer?.files ?? [];
  if (file) bringIn(file);
});

addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#/")) return;
  show().then(() => place.focus({ preventScroll: true }));
});
show();
