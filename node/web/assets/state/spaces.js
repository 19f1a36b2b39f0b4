// The spaces of the account: the list, joining and leaving, and what their members are.

import { spaces as api } from '../api.js';
import { explain } from '../net/problem.js';
import { learnPerson, nameOf } from './people.js';
import { notePresence } from './presence.js';
import { goHome } from './route.js';
import { store, toast } from './store.js';

/** @typedef {import('../types.js').Space} Space */
/** @typedef {import('../types.js').Role} Role */

/** Reads the list from the server. */
export async function loadSpaces() {
  const mine = store.me?.id;
  try {
    const list = await api.mine();
    if (store.me?.id !== mine) return;
    const before = store.spaces;
    store.spaces = new Map(list.map((space) => [space.id, { ...space, role: space.role ?? 'member' }]));
    for (const id of before.keys()) if (!store.spaces.has(id)) dropSpace(id, false);
    store.spacesState = 'ready';
  } catch (error) {
    if (store.me?.id !== mine) return;
    store.spacesState = store.spacesState === 'ready' ? 'ready' : 'failed';
    store.spacesProblem = explain(error);
  }
  store.changed('spaces');
}

/**
 * Takes in a space, keeping what the given one does not say.
 * @param {Partial<Space> & {id: string}} space
 */
export function putSpace(space) {
  const before = store.spaces.get(space.id);
  /** @type {Space} */
  const base = before ?? {
    id: space.id,
    name: '',
    topic: null,
    visibility: 'private',
    role: 'member',
    unread: 0,
    last: null,
  };
  store.spaces.set(space.id, { ...base, ...space, role: space.role ?? base.role });
  store.changed('spaces', space.id);
}

/** @type {Map<string, Promise<void>>} Reads under way, so that a burst of events asks once. */
const loading = new Map();

/**
 * Reads one space from the server, for one that we were added to or whose counts are in doubt.
 * @param {string} id
 */
export function loadSpace(id) {
  let read = loading.get(id);
  if (!read) {
    const mine = store.me?.id;
    read = api
      .get(id)
      .then((space) => {
        if (store.me?.id === mine && space.role) putSpace(space);
      })
      .catch(() => {
        // Not ours (any more), or out of reach: the next full read of the list settles it.
      })
      .finally(() => loading.delete(id));
    loading.set(id, read);
  }
  return read;
}

/**
 * @param {string} id
 * @param {boolean} [tell]
 */
export function dropSpace(id, tell = true) {
  const space = store.spaces.get(id);
  store.spaces.delete(id);
  store.timelines.delete(id);
  store.members.delete(id);
  store.typing.delete(id);
  store.changed('spaces', id);
  if (store.open !== id) return;
  goHome();
  if (tell) toast(`You are no longer in ${space?.name || 'that space'}.`);
}

/** @param {string} id */
export async function joinSpace(id) {
  await api.join(id);
  welcome(await api.get(id));
}

/**
 * Takes in a space that was just joined. What was said before counts as read: a newcomer has missed nothing.
 * @param {Space} space
 */
export function welcome(space) {
  putSpace({ ...space, role: space.role ?? 'member', unread: 0 });
  if (space.last && space.unread > 0) {
    api.read(space.id, space.last).catch(() => {
      // Reading the space marks it as well.
    });
  }
}

/** @param {string} id */
export async function leaveSpace(id) {
  await api.removeMember(id, 'me');
  dropSpace(id, false);
}

/** @param {string} id */
export async function loadMembers(id) {
  const members = await api.members(id);
  store.members.set(id, new Map(members.map((member) => [member.account, member.role])));
  for (const { account, name, handle, online } of members) {
    if (name) learnPerson({ id: account, name, handle });
    if (online !== null) notePresence(account, online);
  }
  store.changed('members', id);
}

/**
 * Its name, or for a direct conversation the names of the others in it.
 * @param {Space} space
 */
export function titleOf(space) {
  if (space.visibility !== 'direct') return space.name || 'Unnamed space';
  const members = store.members.get(space.id);
  if (!members) {
    const key = `members ${space.id}`;
    if (!loading.has(key)) {
      // Kept when it fails, so that it is not asked again with every draw.
      loading.set(key, loadMembers(space.id).then(() => void loading.delete(key), () => {}));
    }
    return space.name || 'Direct conversation';
  }
  return othersOf(space).map(nameOf).join(', ') || 'Notes to yourself';
}

/** The other members of a space, as far as they have been read. @param {Space} space */
export function othersOf(space) {
  return [...(store.members.get(space.id)?.keys() ?? [])].filter((id) => id !== store.me?.id);
}

/** @returns {Space[]} By name, direct conversations last. */
export function sortedSpaces() {
  const collator = new Intl.Collator(undefined, { sensitivity: 'base', numeric: true });
  return [...store.spaces.values()].sort(
    (a, b) =>
      Number(a.visibility === 'direct') - Number(b.visibility === 'direct') ||
      collator.compare(titleOf(a), titleOf(b)) ||
      (a.id < b.id ? -1 : 1),
  );
}

/** @param {Space|undefined} space */
export const canManage = (space) =>
  space?.visibility !== 'direct' && (space?.role === 'owner' || space?.role === 'admin');
