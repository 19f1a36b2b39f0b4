// Applies the chosen light or dark theme before the first paint, so that the page does not flash in the other one.
// A classic script in the head on purpose: modules run only after the page has been drawn.
try {
  const chosen = localStorage.getItem('mychat-theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is closed to us: the system's preference rules.
}
