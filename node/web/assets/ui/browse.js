// The dialog that lists the public spaces one can join.

import { spaces as api } from '../api.js';
import { explain } from '../net/problem.js';
import { goSpace } from '../state/route.js';
import { joinSpace } from '../state/spaces.js';
import { store } from '../state/store.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';

/** @typedef {import('../types.js').Space} Space */

export function openBrowse() {
  openDialog({
    title: 'Public spaces',
    kind: 'tall',
    content: (close) => {
      const list = h('ul', { class: 'browse-list' });
      const note = h('p', { class: 'dialog-note', role: 'status' }, 'Reading the list…');
      const filter = h('input', { type: 'search', class: 'input', placeholder: 'Filter by name or topic', 'aria-label': 'Filter', autofocus: true });
      /** @type {Space[]} */
      let found = [];
      const draw = () => {
        const text = filter.value.trim().toLowerCase();
        const shown = found.filter((space) => `${space.name} ${space.topic ?? ''}`.toLowerCase().includes(text));
        list.replaceChildren(...shown.map((space) => item(space, close)));
        note.textContent = shown.length > 0 ? '' : found.length > 0 ? 'No space matches.' : 'There are no public spaces yet.';
        note.hidden = shown.length > 0;
      };
      filter.addEventListener('input', draw);
      api.open().then(
        (spaces) => {
          found = spaces;
          draw();
        },
        (error) => {
          note.textContent = explain(error);
        },
      );
      return [filter, note, list];
    },
  });
}

/** @param {Space} space @param {() => void} close */
function item(space, close) {
  const joined = store.spaces.has(space.id);
  const error = h('span', { class: 'form-error', role: 'alert', hidden: true });
  const button = h(
    'button',
    { type: 'button', class: joined ? 'button' : 'button primary', test: 'join-space', 'data-space': space.id },
    joined ? 'Open' : 'Join',
  );
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      if (!store.spaces.has(space.id)) await joinSpace(space.id);
      close();
      goSpace(space.id);
    } catch (problem) {
      error.textContent = explain(problem);
      error.hidden = false;
      button.disabled = false;
    }
  });
  const text = h(
    'div',
    { class: 'browse-text' },
    h('span', { class: 'browse-name' }, space.name),
    space.topic ? h('span', { class: 'browse-topic' }, space.topic) : null,
    error,
  );
  return h('li', { class: 'browse-item' }, text, button);
}
