// Listening tests: make one, send its link, read what people said.

import { getJson, request } from "./api.js";
import { digits } from "./chart.js";
import { announce, copyButton, el, empty, field, heading, note, select } from "./dom.js";

const PRESETS = [
  ["ovl-rel", "OVL and REL, 1 to 5"],
  ["ovl", "OVL only, 1 to 5 (needs no texts)"],
  ["tta-bench", "TTA-Bench's five axes, 1 to 10"],
  ["ab", "AB: which of two is better"],
];

export async function tests(screen, name) {
  if (name === "+new") return create(screen);
  if (name) return results(screen, name);
  screen.append(heading("Listening tests", "People listen without knowing what they hear; their answers become numbers with intervals."));
  const { data } = await getJson("v1/listening/tests");
  const make = el("a", { class: "plain", href: "#/tests/+new" }, "New listening test");
  if (!data.length) screen.append(empty("No listening test yet", "All you need is a folder of sounds for each system.", make));
  else screen.append(el("div", { class: "stack" }, el("div", {}, make), el("ul", { class: "list" }, ...data.map(line))));
  return null;
}

function line(test) {
  if (test.problem) return el("li", {}, el("div", {}, el("b", {}, test.name), note(test.problem, true)));
  const words = `${test.systems.join(", ")} · ${test.num_clips} clips · ${test.num_finished} of ${test.num_raters} raters have finished`;
  return el("li", {}, el("a", { href: `#/tests/${test.name}` }, el("b", {}, test.title), el("span", { class: "soft" }, words), el("small", {}, `${test.name} · ${test.preset}`)));
}

function create(screen) {
  const systems = el("div", { class: "stack" });
  const add = () => systems.append(systemFields(systems.children.length));
  add();
  add();
  const name = el("input", { type: "text", required: true, pattern: "[a-z0-9][a-z0-9\\-]{0,63}" });
  const title = el("input", { type: "text", required: true, maxlength: 200, value: "Listening test" });
  const preset = select(PRESETS, "ovl-rel");
  const repeats = el("input", { type: "number", required: true, min: 0, max: 50, value: 2 });
  const open = el("input", { type: "checkbox", checked: true });
  const texts = el("textarea", { rows: 4, placeholder: "dog = a dog barks twice" });
  const told = el("div");
  const form = el(
    "form",
    { class: "panel" },
    el("div", { class: "pair" }, field("Name", name, "Small letters, digits and hyphens; it stands in the link."), field("Title", title, "What raters read.")),
    el("div", { class: "pair" }, field("Questions", preset), field("Heard twice", repeats, "Sounds that everybody hears a second time.")),
    el("fieldset", { class: "stack" }, el("legend", {}, "Systems and their sounds"), el("small", {}, "Sounds of the same file name answer the same text."), systems),
    el("div", {}, el("button", { type: "button", class: "plain", onclick: add }, "Another system")),
    field("Texts, one a line", texts, "File name without ending = text. Sounds made here know theirs."),
    el("label", { class: "check" }, open, "Whoever has the link may take part"),
    told,
    el("div", {}, el("button", { class: "main" }, "Make the test")),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button.main");
    button.disabled = true;
    try {
      const design = { title: title.value, preset: preset.value, num_repeats: repeats.valueAsNumber, is_open: open.checked };
      const made = await send(name.value, design, texts.value, systems);
      announce("The test is made");
      location.hash = `#/tests/${made.name}`;
    } catch (error) {
      told.replaceChildren(note(error.message, true));
      button.disabled = false;
    }
  });
  screen.append(heading("New listening test", "Files are copied under names that say nothing, and without the tags that would tell who made them."), form);
  return null;
}

function systemFields(number) {
  const label = `System ${number + 1}`;
  return el(
    "div",
    { class: "pair system" },
    field(label, el("input", { type: "text", required: number < 1, maxlength: 100, class: "system-name" })),
    field(`Sounds of ${label.toLowerCase()}`, el("input", { type: "file", multiple: true, accept: "audio/*,.flac,.opus,.ogg", class: "system-files" })),
  );
}

async function send(name, design, texts, systems) {
  const body = new FormData();
  const prompts = Object.fromEntries(texts.split("\n").filter((text) => text.includes("=")).map((text) => text.split(/=(.*)/s).slice(0, 2).map((part) => part.trim())));
  body.append("name", name);
  body.append("design", JSON.stringify(design));
  body.append("prompts", JSON.stringify(prompts));
  for (const system of systems.children) {
    const files = system.querySelector(".system-files").files;
    const called = system.querySelector(".system-name").value.trim();
    if (files.length && !called) throw new Error("A system with sounds has no name.");
    for (const file of files) body.append(`system:${called}`, file, file.name);
  }
  return (await request("v1/listening/tests", { method: "POST", body })).json();
}

async function results(screen, name) {
  const path = `v1/listening/tests/${encodeURIComponent(name)}`;
  const test = (await getJson("v1/listening/tests")).data.find((one) => one.name === name);
  if (!test) throw new Error(`There is no listening test called ${name}.`);
  const place = el("div", { class: "stack" });
  screen.append(
    heading(test.title, `${test.num_clips} clips of ${test.systems.join(", ")} · ${test.num_finished} of ${test.num_raters} raters have finished`),
    el("div", { class: "stack" }, el("div", {}, el("a", { class: "plain", href: "#/tests" }, "All tests")), invitation(test, path), place),
  );
  place.append(...(test.num_pages_done ? await reportSoFar(path) : [nobody()]));
  return null;
}

const nobody = () => empty("No result yet", "Nobody has answered. Send the link to people who listen.");

/** What people said; pages that were answered may all be probes, of which there is nothing to tell. */
async function reportSoFar(path) {
  try {
    return report(await getJson(`${path}/results`), path);
  } catch (error) {
    if (error.status !== 422) throw error;
    return [nobody()];
  }
}

function invitation(test, path) {
  const link = (token) => new URL(`listen.html#${token}`, location.href).href;
  const links = el("pre", { tabindex: 0, "aria-label": "Links for raters", hidden: true });
  const count = el("input", { type: "number", min: 1, max: 500, value: 10, required: true, class: "short" });
  const form = el("form", { class: "row" }, field("Personal links", count), el("button", { class: "plain" }, "Make links"), test.is_open && copyButton("Copy the open link", () => link(test.name)));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { tokens } = await getJson(`${path}/invitations`, { method: "POST", json: { count: count.valueAsNumber } });
      links.textContent = tokens.map(link).join("\n");
    } catch (error) {
      links.textContent = error.message;
    }
    links.hidden = false;
    announce("Links for raters are shown once; copy them now.");
  });
  const words = test.is_open ? "Whoever opens the link may take part." : "Only those with a personal link may take part; each is shown once.";
  return el("section", { class: "panel", "aria-label": "Raters" }, el("h2", {}, "Raters"), el("p", { class: "facts-line" }, words), form, links);
}

function report(found, path) {
  const files = ["ratings.csv", "clips.jsonl", "results.tex", "pairs.zip"].map((file) => el("button", { type: "button", class: "plain", onclick: () => download(path, file) }, file));
  return [...found.axes.flatMap((axis) => axisReport(axis)), raters(found), el("h2", { class: "section-title" }, "Files"), el("div", { class: "row", id: "files" }, ...files)];
}

async function download(path, file) {
  try {
    const blob = await (await request(`${path}/files/${file}`)).blob();
    const link = el("a", { href: URL.createObjectURL(blob), download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    document.getElementById("files").after(note(error.message, true));
  }
}

function axisReport(axis) {
  const scores = axis.scores.map((s) => [s.system, s.value.toFixed(2), `${s.low.toFixed(2)} to ${s.high.toFixed(2)}`, s.deviation.toFixed(2), s.num_raters, s.num_ratings]);
  const pairs = axis.differences.map((d) => [`${d.second} − ${d.first}`, digits(d.value), `${digits(d.low)} to ${digits(d.high)}`, digits(d.p_holm), d.num_prompts]);
  const agreement = axis.alpha === null ? "Agreement needs more ratings." : `Krippendorff's alpha ${axis.alpha.toFixed(3)}${axis.icc ? `, ICC(2,k) ${axis.icc.average.toFixed(3)}` : ""}.`;
  return [
    el("h2", { class: "section-title" }, axis.axis === "preference" ? "Share of comparisons won" : axis.axis),
    el(
      "div",
      { class: "panel" },
      table(`${axis.axis} by system`, ["system", "mean", "95 %", "deviation", "raters", "ratings"], scores),
      pairs.length ? table(`Differences of ${axis.axis}`, ["difference", "mean", "95 %", "p (Holm)", "prompts"], pairs) : null,
      el("p", { class: "facts-line" }, agreement),
    ),
  ].filter(Boolean);
}

function raters(found) {
  const doubts = found.axes.flatMap((axis) => axis.raters.flatMap((rater) => rater.doubts.map((doubt) => `${rater.rater} ${doubt} (${axis.axis})`)));
  const steady = Object.entries(found.repeat_difference).map(([rater, value]) => `${rater}: answers to sounds heard twice differ by ${digits(value)} on average`);
  const lines = [...doubts, ...steady];
  return el("div", { class: "stack" }, el("h2", { class: "section-title" }, "Who was listening"), lines.length ? el("ul", { class: "list" }, ...lines.map((text) => el("li", {}, el("span", { class: "line" }, text)))) : el("p", { class: "facts-line" }, "Nobody is doubted."));
}

function table(caption, columns, rows) {
  const head = el("tr", {}, ...columns.map((column) => el("th", { scope: "col" }, column)));
  const lines = rows.map(([first, ...cells]) => el("tr", {}, el("th", { scope: "row" }, first), ...cells.map((cell) => el("td", {}, String(cell)))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...lines)));
}
