// What the server's events do to the store. Events come at least once, so each of these may be applied again.

import { asMessage, asSpace } from '../api.js';
import { changeSpace } from './change.js';
import { isWatched, readElsewhere } from './reading.js';
import { learnPerson, nameOf } from './people.js';
import { notePresence } from './presence.js';
import { dropSpace, loadSpace, putMember } from './spaces.js';
import { announce, store } from './store.js';
import { buryMessage, changeReaction, forgetMessages, putMessage, timelineOf } from './timeline.js';
import { noteTyping, stopTyping } from './typing.js';

/** @typedef {import('../types.js').ServerEvent} ServerEvent */
/** @typedef {import('../types.js').Role} Role */

/** Ids of the last messages counted as unread, so that one that comes twice counts once. */
const counted = new Set();
const COUNTED_MAX = 4096;

/** @param {ServerEvent} event */
export function applyEvent({ type, data }) {
  if (!store.me || !data) return;
  switch (type) {
    case 'message.created':
      return created(data);
    case 'message.edited':
      return putMessage(data);
    case 'message.deleted':
      return buryMessage(data.space, data.id ?? data.message);
    case 'reaction.added':
    case 'reaction.removed':
      return changeReaction(data.space, data.message, data.emoji, data.account, type === 'reaction.added');
    case 'read':
      if (data.account === store.me.id) readElsewhere(data.space, data.message, data.unread);
      return;
    case 'typing':
      return noteTyping(data.space, data.account);
    case 'presence':
      return notePresence(data.account, data.online === true);
    case 'space.created':
    case 'space.updated':
      return spaceChanged(data);
    case 'space.deleted':
      return dropSpace(data.space ?? data.id);
    case 'member.added':
      return memberAdded(data.space, data.account, data.role ?? 'member');
    case 'member.removed':
      return memberRemoved(data.space, data.account);
    case 'account.updated':
      return accountUpdated(data);
    default:
      // Types that a newer server may have are none of our business.
  }
}

/** @param {any} data */
function created(data) {
  const message = asMessage(data);
  if (Array.isArray(data.replaces)) forgetMessages(message.space, data.replaces);
  putMessage(data);
  stopTyping(message.space, message.author);
  const space = store.spaces.get(message.space);
  if (!space) {
    loadSpace(message.space);
    return;
  }
  if (counted.has(message.id)) return;
  counted.add(message.id);
  if (counted.size > COUNTED_MAX) counted.delete(counted.values().next().value);
  if (space.last && message.id <= space.last) {
    // Already in the count that we read, or late from afar: only the server can tell.
    if (!isWatched(space.id)) loadSpace(space.id);
    return;
  }
  const others = message.author !== store.me?.id;
  const watched = isWatched(space.id);
  changeSpace(space.id, (known) => {
    // Also said of an answer that was on its way, which may have it.
    if (known.last && message.id <= known.last) return known;
    return { ...known, last: message.id, unread: known.unread + (others && !watched ? 1 : 0) };
  });
  if (!others) return;
  if (space.id === store.open) announce(`${nameOf(message.author)}: ${message.body}`);
  const timeline = store.timelines.get(space.id);
  if (timeline?.state === 'ready' && !watched && !timeline.newFrom) timelineOf(space.id).newFrom = message.id;
}

/** @param {any} data */
function spaceChanged(data) {
  const id = data.id ?? data.space;
  if (!store.spaces.has(id)) {
    loadSpace(id);
    return;
  }
  changeSpace(id, (before) => {
    // The same bytes go to every member, so what is the caller's own (role, unread) is not taken from them.
    const { name, topic, visibility } = asSpace({ ...before, ...data });
    // A direct conversation has another name for each of its members.
    return { ...before, name: visibility === 'direct' ? before.name : name, topic, visibility };
  });
}

/** @param {string} space @param {string} account @param {Role} role */
function memberAdded(space, account, role) {
  putMember(space, account, role);
  if (account !== store.me?.id) return;
  if (store.spaces.has(space)) changeSpace(space, (known) => ({ ...known, role }));
  else loadSpace(space);
}

/** @param {string} space @param {string} account */
function memberRemoved(space, account) {
  putMember(space, account, null);
  // Without a word of a space that is not held; an answer on its way may have it.
  if (account === store.me?.id) dropSpace(space, store.spaces.has(space));
}

/** @param {any} data */
function accountUpdated(data) {
  const account = data.account && typeof data.account === 'object' ? data.account : data;
  if (typeof account.id !== 'string') return;
  learnPerson(account);
  if (store.me?.id === account.id) {
    store.me = { ...store.me, ...account };
    store.changed('session');
  }
}
