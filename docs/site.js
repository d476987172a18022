// A table wider than the page scrolls with the keyboard, too. The theme wraps tables after a page
// is shown, and shows the next page without loading it.
const reach = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .highlight code")) {
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
};
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", reach);
reach();

// A link to a sound plays it, and stops it when it is clicked again.
const player = new Audio();
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href$=".mp3"]');
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  const isOn = link.classList.contains("playing");
  player.pause();
  if (isOn) return;
  player.src = link.href;
  player.play();
  link.classList.add("playing");
});
for (const end of ["pause", "ended"]) {
  player.addEventListener(end, () => document.querySelector("a.playing")?.classList.remove("playing"));
}
