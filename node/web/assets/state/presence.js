// Who is online, of the people whom we share spaces with: read when a stream begins, and kept by its events.

import { presence as api } from '../api.js';
import { Meanwhile } from './meanwhile.js';
import { store } from './store.js';

/** What was told while the answer was on its way, which is newer than the answer. @type {Map<string, boolean>|null} */
let told = null;

/** What is told while members are read: those answers say as well who is online. @type {Meanwhile<boolean>} */
export const presenceReads = new Meanwhile();

/** Reads who is online at the node of the stream that has just begun. */
export async function readPresence() {
  const mine = store.me?.id;
  const meanwhile = (told = new Map());
  /** @type {string[]} */
  let online;
  try {
    online = await api.online();
  } catch {
    // The events bring it up to date little by little, and the next stream reads it again.
    if (told === meanwhile) told = null;
    return;
  }
  if (told !== meanwhile || store.me?.id !== mine) return;
  told = null;
  store.online.clear();
  for (const account of online) store.online.add(account);
  for (const [account, is] of meanwhile) put(account, is);
  store.changed('presence');
}

/** @param {string} account @param {boolean} online */
export function notePresence(account, online) {
  told?.set(account, online);
  presenceReads.tell(account, online);
  if (put(account, online)) store.changed('presence');
}

/** @param {string} account @param {boolean} online */
function put(account, online) {
  if (store.online.has(account) === online) return false;
  if (online) store.online.add(account);
  else store.online.delete(account);
  return true;
}

/** @param {string} account */
export const isOnline = (account) => account === store.me?.id || store.online.has(account);
