// Messages on their way out. Each shows at once; it is sent under a client id that stays the same on every try, on whichever
// node, until the server has it for good. Messages of one space go one after the other, so that they keep their order.

import { messages as api, uuid } from '../api.js';
import { backoff, sleep } from '../net/backoff.js';
import { net } from '../net/net.js';
import { explain, Problem, Unreachable } from '../net/problem.js';
import { putMessage } from './timeline.js';
import { store } from './store.js';

/** @typedef {import('../types.js').Pending} Pending */

/** A server in trouble gets this many tries before the person is asked. A network in trouble gets any number. */
const SERVER_TRIES = 5;

/** @type {Set<string>} Spaces whose queue is being worked on. */
const busy = new Set();

/** @param {string} space */
export const pendingOf = (space) => store.outbox.get(space) ?? [];

/** Whether something has been written that no server has yet. */
export const hasPending = () => [...store.outbox.values()].some((list) => list.length > 0);

/**
 * @param {string} space
 * @param {string} body
 * @param {string|null} replyTo
 */
export function send(space, body, replyTo) {
  const list = store.outbox.get(space) ?? [];
  store.outbox.set(space, list);
  list.push({
    client_id: uuid(),
    space,
    body,
    reply_to: replyTo,
    written_at: new Date().toISOString(),
    state: 'pending',
    reason: '',
  });
  const timeline = store.timelines.get(space);
  if (timeline) timeline.newFrom = null;
  store.changed('timeline', space);
  work(space);
}

/** @param {Pending} item */
export function retry(item) {
  item.state = 'pending';
  item.reason = '';
  store.changed('timeline', item.space);
  work(item.space);
}

/** @param {Pending} item */
export function discard(item) {
  const list = pendingOf(item.space);
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
  store.changed('timeline', item.space);
}

/** @param {string} space */
async function work(space) {
  if (busy.has(space)) return;
  busy.add(space);
  const mine = store.me?.id;
  try {
    for (let tries = 0; store.me && store.me.id === mine; ) {
      const item = pendingOf(space).find((candidate) => candidate.state === 'pending');
      if (!item) return;
      try {
        const { body, client_id } = item;
        const draft = item.reply_to ? { body, client_id, reply_to: item.reply_to } : { body, client_id };
        const message = await api.send(space, draft);
        if (store.me?.id !== mine) return;
        putMessage({ ...message, client_id });
        discard(item);
        tries = 0;
      } catch (error) {
        if (store.me?.id !== mine) return;
        if (!pendingOf(space).includes(item)) continue; // it came back as an event meanwhile
        const wait = waitAfter(error, tries++);
        if (wait === null) {
          fail(item, error);
          tries = 0;
        } else {
          await pause(wait);
        }
      }
    }
  } finally {
    busy.delete(space);
  }
}

/**
 * Milliseconds until the next try, or null when trying again would not help.
 * @param {unknown} error
 * @param {number} tries
 */
function waitAfter(error, tries) {
  if (error instanceof Unreachable) return backoff(tries);
  if (!(error instanceof Problem) || tries >= SERVER_TRIES) return null;
  if (error.status === 429) return (error.retryAfter ?? 1) * 1000 + Math.random() * 500;
  return error.status >= 500 ? backoff(tries) : null;
}

/** @param {Pending} item @param {unknown} error */
function fail(item, error) {
  item.state = 'failed';
  item.reason = explain(error);
  store.changed('timeline', item.space);
}

/** Waits, or until the connection is live again. @param {number} ms */
async function pause(ms) {
  const wake = new AbortController();
  const wasLive = net.connection.state === 'live';
  const heard = () => {
    if (!wasLive && net.connection.state === 'live') wake.abort();
  };
  net.addEventListener('status', heard, { signal: wake.signal });
  await sleep(ms, wake.signal);
  wake.abort();
}
