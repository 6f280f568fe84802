// Not a module: it runs before the page is first painted, so that nothing turns from light to dark, or moves.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  document.documentElement.toggleAttribute("data-user", localStorage.getItem("hubbub-demo-token") !== null);
} catch {
  // no storage: the system's colours, and nobody
}
