// The dialog with one's profile and the look of the page.

import { accounts } from '../api.js';
import { learnPerson } from '../state/people.js';
import { store, toast } from '../state/store.js';
import { openDialog } from './dialog.js';
import { h } from './dom.js';
import { errorLine, field, submits } from './form.js';

const KEY = 'mychat-theme';
const THEMES = [
  { value: '', label: 'As the system' },
  { value: 'light', label: 'Light' },
  { value: 'dark', label: 'Dark' },
];

export function openSettings() {
  openDialog({ title: 'Settings', test: 'settings-dialog', content: (close) => [profile(close), appearance(), keyboard()] });
}

/** @param {() => void} close */
function profile(close) {
  const me = store.me;
  const error = errorLine();
  const form = h(
    'form',
    { test: 'profile-form' },
    field({ label: 'Name', name: 'name', value: me?.name ?? '', required: true, autocomplete: 'name' }),
    field({
      label: 'Handle',
      name: 'handle',
      value: me?.handle ?? '',
      hint: 'Others invite you by it: @handle.',
      autocomplete: 'off',
      spellcheck: false,
    }),
    error,
    h('div', { class: 'dialog-actions' }, h('button', { type: 'submit', class: 'button primary' }, 'Save profile')),
  );
  submits(form, error, async ({ name = '', handle = '' }) => {
    /** @type {{name?: string, handle?: string|null}} */
    const change = {};
    const clean = handle.trim().replace(/^@/, '');
    if (name.trim() !== me?.name) change.name = name.trim();
    if (clean !== (me?.handle ?? '')) change.handle = clean || null;
    if (Object.keys(change).length > 0) {
      const account = await accounts.update(change);
      if (store.me) store.me = { ...store.me, ...account };
      learnPerson(account);
      store.changed('session');
      toast('Your profile is saved.');
    }
    close();
  });
  return form;
}

function appearance() {
  const now = document.documentElement.dataset.theme ?? '';
  const options = THEMES.map(({ value, label }) => {
    const input = h('input', { type: 'radio', name: 'theme', value, checked: value === now });
    input.addEventListener('change', () => setTheme(value));
    return h('label', { class: 'segment' }, input, h('span', null, label));
  });
  return h(
    'div',
    { class: 'group', role: 'radiogroup', 'aria-labelledby': 'appearance' },
    h('h3', { id: 'appearance' }, 'Appearance'),
    h('div', { class: 'segment-row' }, options),
  );
}

/** @param {string} theme */
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    if (theme) localStorage.setItem(KEY, theme);
    else localStorage.removeItem(KEY);
  } catch {
    // Then it lasts as long as the page.
  }
}

function keyboard() {
  const keys = [
    ['Ctrl K or ⌘ K', 'Go to a space'],
    ['Enter', 'Send'],
    ['Shift Enter', 'New line'],
    ['↑ in an empty box', 'Edit your last message'],
    ['Shift Tab, then ↑ ↓', 'Move between messages'],
    ['R, E, +, Delete on a message', 'Reply, edit, react, delete'],
  ];
  return h(
    'details',
    { class: 'keyboard' },
    h('summary', null, 'Keyboard'),
    h('dl', null, keys.flatMap(([key, does]) => [h('dt', null, key), h('dd', null, does)])),
  );
}
