// The messages of each space: reading history page by page, and taking in what events bring. Items are kept in the order of
// their ids, which is the order of sending in the whole cluster, so a message that arrives late from afar finds its place.

import { asMessage, messages as api } from '../api.js';
import { explain } from '../net/problem.js';
import { Meanwhile } from './meanwhile.js';
import { toast, store } from './store.js';

/** @typedef {import('../types.js').Message} Message */
/** @typedef {import('../types.js').Timeline} Timeline */

const PAGE = 50;
const PAGE_MAX = 200;
/** How far back a jump to an old message pages before it gives up. */
const JUMP_PAGES = 25;

/** How many messages of a space are held while nobody looks further back, and how many go at once when there are more. */
const HELD = 1_000;
const CUT = 200;
/** How many are held while somebody does: what a jump may read, and what came since. */
const HELD_BACK = HELD + JUMP_PAGES * PAGE_MAX;
/** How many spaces' messages are held: those of the last visits. */
const KEPT = 8;

/** @param {string} space @returns {Timeline} */
export function timelineOf(space) {
  let timeline = store.timelines.get(space);
  if (!timeline) {
    timeline = {
      items: [],
      older: null,
      state: 'empty',
      paging: false,
      reading: false,
      again: false,
      back: false,
      problem: '',
      newFrom: null,
    };
    store.timelines.set(space, timeline);
  }
  return timeline;
}

/**
 * The timeline of a space that is being opened. Those of the spaces whose last visit is longest ago go.
 * @param {string} space
 */
export function visit(space) {
  const timeline = timelineOf(space);
  store.timelines.delete(space);
  store.timelines.set(space, timeline);
  for (const id of [...store.timelines.keys()].slice(0, -KEPT)) store.timelines.delete(id);
  for (const [id, other] of store.timelines) cut(id, other);
  return timeline;
}

/** A change of a message; null when it is none any more. @typedef {(message: Message) => Message|null} Change */

/** What is told of messages while pages are read. @type {Meanwhile<Change>} */
const meanwhile = new Meanwhile();

/**
 * Reads the newest page. What was held stays if the page reaches it; else there is a gap, and it goes.
 * @param {string} space
 */
export async function loadNewest(space) {
  const timeline = timelineOf(space);
  if (timeline.reading) {
    // The answer on its way may be older than what asks for this read.
    timeline.again = true;
    return;
  }
  timeline.reading = true;
  if (timeline.state !== 'ready') timeline.state = 'loading';
  store.changed('timeline', space);
  /** Up to here nothing is missing. What events bring later may lie behind a gap. */
  let held = new Set(timeline.state === 'ready' ? timeline.items.map((item) => item.id) : []);
  do {
    timeline.again = false;
    held = await readNewest(space, timeline, held);
    if (store.timelines.get(space) !== timeline) return;
    timeline.reading = timeline.again;
    store.changed('timeline', space);
  } while (timeline.reading);
}

/**
 * @param {string} space
 * @param {Timeline} timeline
 * @param {Set<string>} held Messages between which none is missing.
 * @returns {Promise<Set<string>>} The same after this page.
 */
async function readNewest(space, timeline, held) {
  // All that is unread, where that is not too much, so that its beginning can be shown.
  const unread = store.spaces.get(space)?.unread ?? 0;
  const read = meanwhile.begin();
  try {
    const page = await api.history(space, null, Math.min(PAGE_MAX, Math.max(PAGE, unread + 10)));
    if (store.timelines.get(space) !== timeline) return held;
    const first = timeline.state !== 'ready';
    const ids = page.items.map((item) => item.id);
    const end = ids.at(-1) ?? '';
    const meets = page.next === null || ids.some((id) => held.has(id));
    // Over a gap, only what events have brought since stays.
    if (!meets) timeline.items = timeline.items.filter((item) => !held.has(item.id) && item.id > end);
    const oldest = timeline.items[0]?.id;
    if (!meets || page.next === null || !oldest || end <= oldest) timeline.older = page.next;
    take(timeline, page.items, read);
    timeline.state = 'ready';
    if (first) timeline.newFrom = firstUnread(timeline, unread);
    return new Set(meets ? [...held, ...ids] : ids);
  } catch (error) {
    if (timeline.state !== 'ready') {
      timeline.state = 'failed';
      timeline.problem = explain(error);
    }
    return held;
  } finally {
    meanwhile.end(read);
  }
}

/**
 * Takes in a page, brought up to date with what has been told of its messages since it was asked for.
 * @param {Timeline} timeline
 * @param {Message[]} items
 * @param {ReturnType<typeof meanwhile.begin>} read
 */
function take(timeline, items, read) {
  for (const item of items) {
    /** @type {Message|null} */
    let message = item;
    for (const change of read.told(item.id)) message = message && change(message);
    if (message) insert(timeline, message);
  }
}

/**
 * Reads the page before the oldest held.
 * @param {string} space
 * @param {number} [limit]
 */
export async function loadOlder(space, limit = PAGE) {
  const timeline = timelineOf(space);
  if (timeline.paging || !timeline.older || timeline.state !== 'ready') return;
  timeline.paging = true;
  store.changed('timeline', space);
  const { older } = timeline;
  const read = meanwhile.begin();
  try {
    const page = await api.history(space, older, limit);
    // Where the oldest held is another one by now, the page would lie behind a gap.
    if (store.timelines.get(space) !== timeline || timeline.older !== older) return;
    take(timeline, page.items, read);
    timeline.older = page.items.length > 0 ? page.next : null;
  } catch (error) {
    toast(explain(error));
  } finally {
    meanwhile.end(read);
    timeline.paging = false;
    store.changed('timeline', space);
  }
}

/**
 * Reads back until a message is held. Resolves to whether it is.
 * @param {string} space
 * @param {string} message
 */
export async function reach(space, message) {
  const timeline = timelineOf(space);
  const held = () => timeline.items.some((item) => item.id === message);
  for (let pages = 0; pages < JUMP_PAGES && !held() && timeline.older; pages++) {
    const before = timeline.older;
    await loadOlder(space, PAGE_MAX);
    if (timeline.older === before) break;
  }
  return held();
}

/** Drops what is held of every space but the open one, which is read again: after a gap in the events. */
export async function reread() {
  for (const id of [...store.timelines.keys()]) if (id !== store.open) store.timelines.delete(id);
  if (store.open && store.timelines.has(store.open)) await loadNewest(store.open);
}

/**
 * Takes in a message, new or changed. Messages older than the part of the history that is held are left to paging.
 * @param {any} raw
 */
export function putMessage(raw) {
  const message = asMessage(raw);
  settle(message);
  meanwhile.tell(message.id, (known) => laterOf(message, known));
  const timeline = store.timelines.get(message.space);
  if (!timeline || (timeline.state !== 'ready' && timeline.state !== 'loading')) return;
  const oldest = timeline.items[0];
  if (timeline.older && oldest && message.id < oldest.id) return;
  insert(timeline, message);
  cut(message.space, timeline);
  store.changed('timeline', message.space);
}

/** A message of ours that has come back is not pending any more. @param {Message} message */
function settle(message) {
  if (!message.client_id || message.author !== store.me?.id) return;
  const pending = store.outbox.get(message.space);
  const index = pending?.findIndex((item) => item.client_id === message.client_id) ?? -1;
  if (pending && index >= 0) {
    pending.splice(index, 1);
    store.changed('timeline', message.space);
  }
}

/**
 * @param {string} space
 * @param {string} id
 * @param {(message: Message) => Message} change
 */
export function changeMessage(space, id, change) {
  meanwhile.tell(id, change);
  const timeline = store.timelines.get(space);
  const index = timeline?.items.findIndex((item) => item.id === id) ?? -1;
  const item = timeline?.items[index];
  if (!timeline || !item) return;
  timeline.items[index] = change(item);
  store.changed('timeline', space);
}

/**
 * Takes out copies of a message that turned out to be one, sent to two nodes.
 * @param {string} space
 * @param {string[]} ids
 */
export function forgetMessages(space, ids) {
  for (const id of ids) meanwhile.tell(id, () => null);
  const timeline = store.timelines.get(space);
  if (!timeline) return;
  timeline.items = timeline.items.filter((item) => !ids.includes(item.id));
  store.changed('timeline', space);
}

/** @param {string} space @param {string} id */
export const buryMessage = (space, id) =>
  changeMessage(space, id, (item) => ({ ...item, deleted: true, body: '', html: '', reactions: {} }));

/**
 * @param {string} space @param {string} id @param {string} emoji @param {string} account @param {boolean} on
 */
export function changeReaction(space, id, emoji, account, on) {
  changeMessage(space, id, (item) => {
    const accounts = (item.reactions[emoji] ?? []).filter((other) => other !== account);
    if (on) accounts.push(account);
    const reactions = { ...item.reactions, [emoji]: accounts };
    if (accounts.length === 0) delete reactions[emoji];
    return { ...item, reactions };
  });
}

/** @param {Message} message @param {Message} known */
const isOlder = (message, known) =>
  known.edited_at !== null && (message.edited_at === null || Date.parse(message.edited_at) < Date.parse(known.edited_at));

/**
 * An old copy must not undo a deletion or an edit that we already know of: a node may lag behind our last one.
 * @param {Message} message @param {Message} known
 */
const laterOf = (message, known) =>
  message.deleted || (!known.deleted && !isOlder(message, known)) ? message : known;

/** @param {Timeline} timeline @param {Message} message */
function insert(timeline, message) {
  const { items } = timeline;
  let at = items.length;
  while (at > 0 && /** @type {Message} */ (items[at - 1]).id > message.id) at--;
  const before = items[at - 1];
  if (before?.id !== message.id) items.splice(at, 0, message);
  else items[at - 1] = laterOf(message, before);
}

/**
 * Lets go of the oldest when there are too many. Paging reads them again: the cursor of a history is the id of the message
 * before which it goes on.
 * @param {string} space
 * @param {Timeline} timeline
 */
function cut(space, timeline) {
  // Pages on their way have to meet what is held.
  if (timeline.state !== 'ready' || timeline.paging || timeline.reading) return;
  const most = timeline.back && space === store.open ? HELD_BACK : HELD;
  if (timeline.items.length < most + CUT) return;
  timeline.items = timeline.items.slice(-most);
  timeline.older = timeline.items[0]?.id ?? null;
}

/** @param {Timeline} timeline @param {number} unread */
function firstUnread(timeline, unread) {
  let left = unread;
  let found = null;
  for (let at = timeline.items.length - 1; at >= 0 && left > 0; at--) {
    const item = /** @type {Message} */ (timeline.items[at]);
    if (item.author === store.me?.id || item.deleted) continue;
    found = item.id;
    left -= 1;
  }
  return found;
}
