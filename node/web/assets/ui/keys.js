// Keys that work everywhere in the page.

import { openSwitcher } from './switcher.js';

export function startKeys() {
  document.addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === 'k') {
      event.preventDefault();
      openSwitcher();
    }
  });
}
