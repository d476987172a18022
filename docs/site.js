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
