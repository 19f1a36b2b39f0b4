// Who is typing where. Ours is told at most every three seconds; that of others is shown until it is five seconds old.

import { spaces as api } from '../api.js';
import { store } from './store.js';

const TELL_MS = 3_000;
const SHOW_MS = 5_000;

let toldAt = 0;
let toldSpace = '';

/** The person is typing in a space. @param {string} space */
export function tellTyping(space) {
  const now = Date.now();
  if (space === toldSpace && now - toldAt < TELL_MS) return;
  toldAt = now;
  toldSpace = space;
  api.typing(space).catch(() => {
    // Nobody misses it.
  });
}

/** What was typed has been sent: the next key press is news again. */
export function typingSent() {
  toldAt = 0;
}

/** @param {string} space @param {string} account */
export function noteTyping(space, account) {
  if (account === store.me?.id) return;
  const map = store.typing.get(space) ?? new Map();
  store.typing.set(space, map);
  map.set(account, Date.now() + SHOW_MS);
  store.changed('typing', space);
  setTimeout(() => store.changed('typing', space), SHOW_MS + 50);
}

/** A message from someone ends their typing. @param {string} space @param {string} account */
export function stopTyping(space, account) {
  if (store.typing.get(space)?.delete(account)) store.changed('typing', space);
}

/** @param {string} space @returns {string[]} Account ids. */
export function typists(space) {
  const map = store.typing.get(space);
  if (!map) return [];
  const now = Date.now();
  for (const [account, until] of map) if (until <= now) map.delete(account);
  return [...map.keys()];
}
