// Who the ids are: names of accounts, fetched once when first needed, a few at a time, and kept.

import { accounts } from '../api.js';
import { Problem } from '../net/problem.js';
import { store } from './store.js';

/** @typedef {import('../types.js').Account} Account */

const AT_ONCE = 6;
const RETRY_MS = 10_000;

/** @type {Set<string>} Asked for or waiting to be. */
const wanted = new Set();
/** @type {string[]} */
const queue = [];
let running = 0;

/**
 * The account of an id as far as known; if it is not, it is fetched and `people` announced.
 * @param {string} id
 * @returns {Account|undefined}
 */
export function person(id) {
  const known = store.people.get(id);
  if (!known && id && !wanted.has(id)) {
    wanted.add(id);
    queue.push(id);
    work();
  }
  return known;
}

/** @param {string} id */
export function nameOf(id) {
  return person(id)?.name || '…';
}

/** @param {Partial<Account> & {id: string}} account */
export function learnPerson(account) {
  const before = store.people.get(account.id);
  const after = { ...(before ?? { name: '' }), ...account };
  // The name of an erased account is gone.
  after.name ||= 'Former member';
  store.people.set(account.id, after);
  if (before?.name !== after.name || before?.handle !== after.handle) store.changed('people', account.id);
}

async function work() {
  while (running < AT_ONCE) {
    const id = queue.shift();
    if (!id) return;
    running += 1;
    fetchOne(id).finally(() => {
      running -= 1;
      work();
    });
  }
}

/** @param {string} id */
async function fetchOne(id) {
  const mine = store.me?.id;
  try {
    const account = await accounts.get(id);
    if (store.me?.id !== mine) return;
    learnPerson(account);
    wanted.delete(id);
  } catch (error) {
    if (store.me?.id !== mine) return;
    if (error instanceof Problem && [403, 404, 410].includes(error.status)) {
      learnPerson({ id, name: 'Former member', active: false });
    } else {
      setTimeout(() => {
        wanted.delete(id);
        if (store.me) person(id);
      }, RETRY_MS);
    }
  }
}
