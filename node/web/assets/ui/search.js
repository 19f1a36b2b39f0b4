// The dialog with what a search has found.

import { search } from '../api.js';
import { explain } from '../net/problem.js';
import { nameOf } from '../state/people.js';
import { goSpace } from '../state/route.js';
import { titleOf } from '../state/spaces.js';
import { store } from '../state/store.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { fullTimeOf, plainOf, shorten } from './format.js';

/** @typedef {import('../types.js').Message} Message */

/** @param {string} text */
export function openSearch(text) {
  openDialog({
    title: `“${shorten(text, 40)}”`,
    kind: 'tall',
    test: 'search-results',
    content: (close) => {
      const note = h('p', { class: 'dialog-note', role: 'status' }, 'Searching…');
      const list = h('ul', { class: 'result-list' });
      /** @type {Message[]} */
      let found = [];
      const draw = () => {
        list.replaceChildren(...found.map((message) => item(message, close)));
        note.textContent = found.length > 0 ? '' : 'Nothing was found.';
        note.hidden = found.length > 0;
      };
      search(text, null).then(
        (messages) => {
          found = messages;
          draw();
          // Names of authors come in later.
          const stop = store.on('people', draw);
          list.closest('dialog')?.addEventListener('close', stop);
        },
        (error) => {
          note.textContent = explain(error);
        },
      );
      return [note, list];
    },
  });
}

/** @param {Message} message @param {() => void} close */
function item(message, close) {
  const space = store.spaces.get(message.space);
  const open = () => {
    close();
    goSpace(message.space, message.id);
  };
  const where = `${nameOf(message.author)} in ${space ? titleOf(space) : 'a space'} · ${fullTimeOf(message.sent_at)}`;
  return h(
    'li',
    null,
    h(
      'button',
      { type: 'button', class: 'result', onclick: open },
      h('span', { class: 'result-where' }, where),
      h('span', { class: 'result-text' }, shorten(plainOf(message), 240)),
    ),
  );
}
