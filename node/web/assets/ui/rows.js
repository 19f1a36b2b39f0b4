// What the timeline shows, as a plain list: messages, the days between them, and the "new messages" line.

import { net } from '../net/net.js';
import { nameOf } from '../state/people.js';
import { store } from '../state/store.js';
import { dayKey, plainOf, shorten } from './format.js';

/** @typedef {import('../types.js').Message} Message */
/** @typedef {import('../types.js').Pending} Pending */
/** @typedef {import('../types.js').Timeline} Timeline */

/**
 * @typedef {object} MessageRow
 * @property {'message'} kind
 * @property {string} key
 * @property {Message} message
 * @property {Pending|null} pending Set while it is on its way out.
 * @property {string} state What of `pending` is shown.
 * @property {boolean} compact It goes on from the message above, so the name is not said again.
 * @property {string} name
 * @property {string} quote The message that it answers, in short.
 */

/** @typedef {MessageRow | {kind: 'day', key: string, day: string} | {kind: 'new', key: string}} Row */

const TOGETHER_MS = 5 * 60_000;

/**
 * @param {Timeline} timeline
 * @param {Pending[]} pending
 * @param {number} most How many messages, counted from the end.
 * @returns {Row[]}
 */
export function rowsOf(timeline, pending, most) {
  const items = timeline.items.slice(-most);
  const byId = new Map(items.map((item) => [item.id, item]));
  const confirmed = new Set(items.map((item) => item.client_id));
  const waiting = pending.filter((item) => !confirmed.has(item.client_id));
  /** @type {Row[]} */
  const rows = [];
  /** @type {Message|null} */
  let above = null;
  /** @param {Message} message @param {Pending|null} item */
  const add = (message, item) => {
    if (!above || dayKey(above.sent_at) !== dayKey(message.sent_at)) {
      rows.push({ kind: 'day', key: `day ${dayKey(message.sent_at)}`, day: message.sent_at });
      above = null;
    }
    if (message.id && message.id === timeline.newFrom) {
      rows.push({ kind: 'new', key: 'new' });
      above = null;
    }
    rows.push({
      kind: 'message',
      // A message of ours keeps its element when the server has confirmed it.
      key: message.client_id && message.author === store.me?.id ? `client ${message.client_id}` : message.id,
      message,
      pending: item,
      state: item ? `${item.state} ${item.reason} ${net.connection.state}` : '',
      compact: above !== null && together(above, message),
      name: nameOf(message.author),
      quote: quoteOf(message, (id) => byId.get(id) ?? find(timeline.items, id)),
    });
    above = message;
  };
  for (const item of items) add(item, null);
  for (const item of waiting) add(asMessage(item), item);
  return rows;
}

/** @param {Message} above @param {Message} message */
function together(above, message) {
  const gap = Date.parse(message.sent_at) - Date.parse(above.sent_at);
  return above.author === message.author && !message.reply_to && gap < TOGETHER_MS;
}

/** @param {Message} message @param {(id: string) => Message|undefined} held */
function quoteOf(message, held) {
  if (!message.reply_to) return '';
  const target = held(message.reply_to);
  if (!target) return 'An earlier message';
  return target.deleted ? 'A deleted message' : `${nameOf(target.author)}: ${shorten(plainOf(target), 90)}`;
}

/** Looks for a message that is not on the screen. @param {Message[]} items In the order of their ids. @param {string} id */
function find(items, id) {
  let from = 0;
  let to = items.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (/** @type {Message} */ (items[middle]).id < id) from = middle + 1;
    else to = middle;
  }
  return items[from]?.id === id ? items[from] : undefined;
}

/** How many messages of others have come after one. @param {Message[]} items @param {string} seen */
export function countAfter(items, seen) {
  let count = 0;
  for (let at = items.length - 1; at >= 0; at -= 1) {
    const item = /** @type {Message} */ (items[at]);
    if (item.id <= seen) break;
    if (item.author !== store.me?.id) count += 1;
  }
  return count;
}

/** @param {Pending} item @returns {Message} */
function asMessage(item) {
  return {
    id: '',
    space: item.space,
    author: store.me?.id ?? '',
    body: item.body,
    html: '',
    sent_at: item.written_at,
    edited_at: null,
    deleted: false,
    reply_to: item.reply_to,
    reactions: {},
    client_id: item.client_id,
  };
}
