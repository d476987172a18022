// Everything that is asked of the server. Answers that are not fine become errors with its words.

const KEY = "resonate-key";

/** The key of a server that asks for one; kept for this tab only. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

const LOST = "The server does not answer. Is it still running?";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A response that is fine. */
export async function request(path, { method = "GET", json = null, body = null, signal = null } = {}) {
  const headers = {};
  if (json) headers["Content-Type"] = "application/json";
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: json ? JSON.stringify(json) : body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, LOST);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new ApiError(response.status, told.error?.message ?? told.detail ?? `the server answered ${response.status}`);
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const getBlob = async (path, options) => (await request(path, options)).blob();

let models = null;

/** Models that the server can load, with their ranges; asked for once. */
export async function listModels() {
  models ??= (await getJson("v1/models")).data;
  return models;
}

/** Jobs by what was wanted: when the server was away and is back, the same job is followed. */
const begun = new WeakMap();

/**
 * Make sounds and hear how far they are.
 *
 * @param {object} wanted input, model, audio_length, negative_prompt, guidance_scale,
 *   num_inference_steps, seeds
 * @param {(done: number, total: number) => void} onStep
 * @param {AbortSignal} signal cancels the job on the server, too
 * @returns {Promise<object[]>} sounds with id, seed, seconds and their blob
 */
export async function makeSounds(wanted, onStep, signal) {
  signal.throwIfAborted();
  const job = begun.get(wanted) ?? (await begin(wanted, signal));
  begun.set(wanted, job);
  const cancel = () => cancelJob(job);
  signal.addEventListener("abort", cancel, { once: true });
  try {
    const done = await followJob(job, onStep, signal);
    return await Promise.all(done.sounds.map(async (sound) => ({ ...sound, blob: await soundOf(sound) })));
  } catch (error) {
    if (error.status) begun.delete(wanted); // without an answer the job may still be made
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

const cancelJob = (job) => request(`v1/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});

/** Send a job. Cancelled meanwhile, its answer is awaited all the same: else it would be made, and nobody knew its id. */
function begin(wanted, signal) {
  const sent = getJson("v1/jobs", { method: "POST", json: wanted });
  sent.then((job) => signal.aborted && cancelJob(job), () => {});
  const cancelled = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  return Promise.race([sent, cancelled]);
}

const place = (id) => `v1/library/${encodeURIComponent(id)}`;

/** The bytes of a sound in the library. */
export const soundOf = (sound) => getBlob(`${place(sound.id)}/audio`);

/** What is known of one. */
export const findSound = (id) => getJson(place(id));

/** Note a name, tags, or that it is a favourite; what is left out stays. */
export const noteSound = (id, changes) => getJson(place(id), { method: "PATCH", json: changes });

export const deleteSound = (id) => request(place(id), { method: "DELETE" });

/** Finish a sound; what comes of it is another one. */
export const finishSound = (id, settings) => getJson(`${place(id)}/finish`, { method: "POST", json: settings });

/** Put a file of this computer into the library. */
export function takeIn(file) {
  const body = new FormData();
  body.append("audio", file, file.name);
  return getJson("v1/library", { method: "POST", body });
}

/** Several sounds in one file. */
export const zipOf = (ids, format = "wav") => getBlob("v1/library/zip", { method: "POST", json: { ids, response_format: format } });

async function followJob(job, onStep, signal) {
  for await (const event of events(`v1/jobs/${job.id}/events`, signal)) {
    if (event.step !== undefined) onStep(event.step, event.total_steps);
    if (event.status === "failed") throw new ApiError(500, event.error?.message ?? "the job failed");
    if (event.status === "cancelled") throw new DOMException("cancelled", "AbortError");
    if (event.status === "succeeded") break;
  }
  return getJson(`v1/jobs/${job.id}`, { signal });
}

/** Server-sent events as objects; unlike EventSource, fetch can send the key. */
async function* events(path, signal) {
  const reader = (await request(path, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, LOST);
    });
    if (done) return;
    rest += value.replaceAll("\r", "");
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}
