// The quick switcher (Ctrl K, ⌘ K): type a part of a name, go there with Enter.

import { goSpace } from '../state/route.js';
import { sortedSpaces, titleOf } from '../state/spaces.js';
import { store } from '../state/store.js';
import { openBrowse } from './browse.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { openNewSpace } from './new-space.js';

/** @typedef {{title: string, note: string, run: () => void}} Entry */

const MOST = 12;

export function openSwitcher() {
  if (store.screen !== 'chat' || document.querySelector('dialog.switcher')) return;
  openDialog({
    title: 'Go to',
    kind: 'switcher',
    test: 'switcher',
    content: (close) => {
      const list = h('ul', { id: 'switcher-list', role: 'listbox', 'aria-label': 'Spaces' });
      const input = h('input', {
        type: 'text',
        class: 'input',
        role: 'combobox',
        placeholder: 'Name of a space',
        'aria-label': 'Name of a space',
        'aria-controls': 'switcher-list',
        'aria-expanded': 'true',
        autocomplete: 'off',
        autofocus: true,
      });
      /** @type {Entry[]} */
      let entries = [];
      let at = 0;
      /** @param {number} index */
      const choose = (index) => {
        close();
        entries[index]?.run();
      };
      const mark = () => {
        for (const [index, option] of [...list.children].entries()) {
          option.setAttribute('aria-selected', String(index === at));
          if (index === at) option.scrollIntoView({ block: 'nearest' });
        }
        input.setAttribute('aria-activedescendant', `switcher-${at}`);
      };
      const draw = () => {
        entries = matching(input.value);
        at = 0;
        list.replaceChildren(
          ...entries.map((entry, index) =>
            h(
              'li',
              { id: `switcher-${index}`, role: 'option', onclick: () => choose(index) },
              h('span', null, entry.title),
              h('span', { class: 'option-note' }, entry.note),
            ),
          ),
        );
        mark();
      };
      input.addEventListener('input', draw);
      input.addEventListener('keydown', (event) => {
        const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
        if (step !== 0) {
          event.preventDefault();
          at = (at + step + entries.length) % entries.length;
          mark();
        } else if (event.key === 'Enter' && !event.isComposing) {
          event.preventDefault();
          choose(at);
        }
      });
      draw();
      return [input, list];
    },
  });
}

/** Unread spaces first, then names that begin with the text. @param {string} text @returns {Entry[]} */
function matching(text) {
  const wanted = text.trim().toLowerCase();
  const found = sortedSpaces()
    .map((space) => ({ space, title: titleOf(space) }))
    .filter(({ title }) => title.toLowerCase().includes(wanted));
  const starts = (/** @type {{title: string}} */ entry) => Number(wanted !== '' && entry.title.toLowerCase().startsWith(wanted));
  found.sort((a, b) => starts(b) - starts(a) || Number(b.space.unread > 0) - Number(a.space.unread > 0));
  /** @type {Entry[]} */
  const entries = found.slice(0, MOST).map(({ space, title }) => ({
    title,
    note: space.unread > 0 ? `${space.unread} unread` : '',
    run: () => goSpace(space.id),
  }));
  entries.push({ title: 'Browse public spaces', note: '', run: openBrowse }, { title: 'Make a space', note: '', run: openNewSpace });
  return entries;
}
