"use strict";
const players = [...document.querySelectorAll(".player")].map((player) => ({
  player,
  audio: player.querySelector("audio"),
  play: player.querySelector(".play"),
  seek: player.querySelector(".seek"),
  clock: player.querySelector(".clock"),
}));

function show({ player, audio, seek, clock }) {
  const length = audio.duration || 1;
  const at = Math.min(1, audio.currentTime / length);
  player.style.setProperty("--at", at);
  seek.value = Math.round(1000 * at);
  seek.setAttribute("aria-valuetext", audio.currentTime.toFixed(1) + " seconds");
  clock.textContent = audio.currentTime.toFixed(1) + " / " + length.toFixed(1) + " s";
  if (audio.currentTime > 0) player.classList.add("begun");
}

function follow(item) {
  show(item);
  if (!item.audio.paused) requestAnimationFrame(() => follow(item));
}

for (const item of players) {
  const { audio, play, seek } = item;
  play.addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
  audio.addEventListener("play", () => {
    for (const other of players) if (other !== item) other.audio.pause();
    play.setAttribute("aria-pressed", "true");
    follow(item);
  });
  audio.addEventListener("pause", () => play.setAttribute("aria-pressed", "false"));
  audio.addEventListener("loadedmetadata", () => show(item));
  audio.addEventListener("timeupdate", () => show(item));
  seek.addEventListener("input", () => {
    if (!audio.duration) return;
    audio.currentTime = (seek.value / 1000) * audio.duration;
    show(item);
  });
  seek.addEventListener("click", () => { if (audio.paused) audio.play(); });
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.text);
      button.textContent = "Copied";
    } catch {
      window.prompt("Copy the command:", button.dataset.text);
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}
