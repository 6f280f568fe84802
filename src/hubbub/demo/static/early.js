// Not a module, so that it runs before the first paint, and the page does not flash or shift.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  document.documentElement.toggleAttribute("data-user", localStorage.getItem("hubbub-demo-token") !== null);
} catch {
  // no storage: use the system's colors, with no user signed in
}
