// What has been read: which space is being watched right now, its read mark on the server, and the counts of the others.

import { spaces as api } from '../api.js';
import { changeSpace } from './change.js';
import { store } from './store.js';

/** @typedef {import('../types.js').Space} Space */

const PAUSE_MS = 700;

/** @type {string|null} The space whose end is on the screen, on a page that is in front. */
let watched = null;
/** @type {Map<string, string>} By space: the message up to which the server knows that we have read. */
const marked = new Map();
/** @type {Map<string, string>} By space: the latest message that was on the screen. What comes after one has left is not. */
const seen = new Map();
/** @type {Map<string, ReturnType<typeof setTimeout>>} */
const timers = new Map();

/** @param {string} space */
export const isWatched = (space) => watched === space && !document.hidden;

/** Said by the timeline on the screen. @param {string|null} space */
export function watch(space) {
  watched = space;
  if (space && isWatched(space)) markRead(space);
}

/** Everything held of a space has been seen. @param {string} id */
export function markRead(id) {
  const space = store.spaces.get(id);
  const newest = store.timelines.get(id)?.items.at(-1)?.id;
  if (!space || !newest) return;
  if (space.unread > 0) changeSpace(id, (known) => ({ ...known, unread: 0 }));
  if (newest > (seen.get(id) ?? '')) seen.set(id, newest);
  if (newest <= (marked.get(id) ?? '') || timers.has(id)) return;
  timers.set(id, setTimeout(() => tellServer(id), PAUSE_MS));
}

/** @param {string} id */
async function tellServer(id) {
  const newest = seen.get(id);
  try {
    if (store.me && newest) {
      await api.read(id, newest);
      marked.set(id, newest);
    }
  } catch {
    // The next message, or the next look at this space, tries again.
  } finally {
    timers.delete(id);
  }
  const later = seen.get(id);
  if (later && newest && later > newest) timers.set(id, setTimeout(() => tellServer(id), PAUSE_MS));
}

/**
 * Another window of ours, or another device, has read up to here.
 * @param {string} id
 * @param {string} message
 * @param {unknown} unread What the server counts as left, if it says so.
 */
export function readElsewhere(id, message, unread) {
  if (message > (marked.get(id) ?? '')) marked.set(id, message);
  changeSpace(id, (space) => {
    const left = typeof unread === 'number' ? unread : leftIn(space, message);
    return left === space.unread ? space : { ...space, unread: left };
  });
}

/** How much is unread behind a message, as far as that can be told here. @param {Space} space @param {string} message */
function leftIn(space, message) {
  if (space.unread === 0 || (space.last && message >= space.last)) return 0;
  const items = store.timelines.get(space.id)?.items;
  if (!items || items.length === 0) return space.unread;
  const left = items.filter((item) => item.id > message && item.author !== store.me?.id && !item.deleted);
  return Math.min(space.unread, left.length);
}

export function forgetReading() {
  watched = null;
  marked.clear();
  seen.clear();
  for (const timer of timers.values()) clearTimeout(timer);
  timers.clear();
}
