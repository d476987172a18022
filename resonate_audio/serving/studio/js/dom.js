// Elements from plain values. Text only ever enters as text: there is no way in for markup.

/** An element; children are elements or texts, null and false are left out. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let lastId = 0;

/** A labelled control; `hint` is shown under it and read with it. */
export function field(label, control, hint = "") {
  control.id ||= `field-${(lastId += 1)}`;
  const parts = [el("label", { for: control.id }, label), control];
  if (hint) {
    control.setAttribute("aria-describedby", `${control.id}-hint`);
    parts.push(el("small", { id: `${control.id}-hint` }, hint));
  }
  return el("div", { class: "field" }, ...parts);
}

/** A list to choose from; options are [value, label]. */
export function select(options, value, properties = {}) {
  const items = options.map(([key, label]) => el("option", { value: key }, label));
  const control = el("select", properties, ...items);
  if (value !== undefined) control.value = value;
  return control;
}

/** Tell what happened to those who cannot see it. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

const nameOf = (control) => control.labels?.[0]?.textContent ?? control.getAttribute("aria-label") ?? control.textContent;

/** Put other children in; who was at a control among the old ones is at the new one of its name. */
export function redraw(place, ...children) {
  const held = place.contains(document.activeElement) ? document.activeElement : null;
  const name = held && nameOf(held);
  const { selectionStart: start, selectionEnd: end } = held ?? {};
  place.replaceChildren(...children);
  const again = held && [...place.querySelectorAll("input, select, textarea, button")].find((control) => nameOf(control) === name);
  again?.focus({ preventScroll: true });
  if (again && typeof start === "number") again.setSelectionRange(start, end);
}

/** What a screen shows before there is anything, or when something failed. */
export function empty(title, text, action = null) {
  return el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), action);
}

/** A note; a bad one is read out at once. */
export function note(text, isBad = false) {
  return el("p", { class: isBad ? "note bad" : "note", role: isBad ? "alert" : "note" }, text);
}

/** Grey shapes in the place of what is being loaded. */
export function loading(label) {
  const bars = [1, 2, 3].map(() => el("span", { class: "bone" }));
  return el("div", { class: "loading", role: "status" }, el("span", { class: "hidden" }, label), ...bars);
}

/** Head of a screen. */
export function heading(title, text) {
  return el("header", { class: "head-of-screen" }, el("h1", {}, title), el("p", {}, text));
}

/** A button that copies a text. */
export function copyButton(label, text) {
  const button = el("button", { type: "button", class: "copy" }, label);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    announce(`${label}: copied`);
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** Hand a file over to the browser's downloads. */
export function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** A button that keeps whether it is on. */
export function toggle(label, isOn, onchange, properties = {}) {
  const button = el("button", { type: "button", class: "plain", "aria-pressed": String(isOn), ...properties }, label);
  button.addEventListener("click", () => {
    const next = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(next));
    onchange(next);
  });
  return button;
}

/** A file name that says what a sound is. */
export function fileName(sound) {
  const words = (sound.name || sound.prompt).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  return `${words || "sound"}${sound.seed === null ? "" : `-${sound.seed}`}.wav`;
}
