// The spaces of the account: the list, joining and leaving, and what their members are.

import { spaces as api } from '../api.js';
import { explain } from '../net/problem.js';
import { spaceReads } from './change.js';
import { Meanwhile } from './meanwhile.js';
import { learnPerson, nameOf } from './people.js';
import { notePresence, presenceReads } from './presence.js';
import { isWatched } from './reading.js';
import { goHome } from './route.js';
import { store, toast } from './store.js';

/** @typedef {import('../types.js').Space} Space */
/** @typedef {import('../types.js').Role} Role */
/** @typedef {import('./change.js').Change} Change */

/** The number of the read of the whole list whose answer is shown. */
let shown = 0;

/** Reads the list from the server. */
export async function loadSpaces() {
  const mine = store.me?.id;
  const read = spaceReads.begin();
  try {
    const list = await api.mine();
    // Of two reads the later begun counts, also if it is answered first.
    if (store.me?.id !== mine || read.number < shown) return;
    shown = read.number;
    const answered = new Map(list.map((space) => [space.id, { ...space, role: space.role ?? 'member' }]));
    const before = store.spaces;
    store.spaces = new Map();
    for (const id of new Set([...answered.keys(), ...read.about()])) {
      const space = brought(answered.get(id), before.get(id), read.told(id));
      if (space) store.spaces.set(id, space);
    }
    for (const [id, space] of before) if (!store.spaces.has(id)) forget(id, space, false);
    store.spacesState = 'ready';
  } catch (error) {
    if (store.me?.id !== mine || read.number < shown) return;
    store.spacesState = store.spacesState === 'ready' ? 'ready' : 'failed';
    store.spacesProblem = explain(error);
  } finally {
    spaceReads.end(read);
  }
  store.changed('spaces');
}

/**
 * What an answer says of a space, brought up to date with what has been told since it was asked for.
 * @param {Space|undefined} answered
 * @param {Space|undefined} held
 * @param {Change[]} told
 */
function brought(answered, held, told) {
  // A space that the answer lacks and of which something was told is held if it was not taken away: joined meanwhile.
  if (!answered) return told.length > 0 ? held : undefined;
  /** @type {Space|undefined} */
  let space = answered;
  for (const change of told) space = change(space);
  return space && isWatched(space.id) ? { ...space, unread: 0 } : space;
}

/**
 * Takes in a space, keeping what the given one does not say.
 * @param {Partial<Space> & {id: string}} space
 * @param {number} [as] The number of the read that it comes from.
 */
export function putSpace(space, as) {
  /** @param {Space|undefined} before @returns {Space} */
  const put = (before) => {
    const base = before ?? { name: '', topic: null, visibility: 'private', role: 'member', unread: 0, last: null };
    return { ...base, ...space, role: space.role ?? base.role };
  };
  spaceReads.tell(space.id, put, as);
  store.spaces.set(space.id, put(store.spaces.get(space.id)));
  store.changed('spaces', space.id);
}

/** @type {Map<string, Promise<void>>} Reads under way, so that a burst of events asks once. */
const loading = new Map();
/** @type {Set<string>} Spaces that are to be read again after that: the answer on its way may be older than what asks. */
const again = new Set();

/**
 * Reads one space from the server, for one that we were added to or whose counts are in doubt.
 * @param {string} id
 */
export function loadSpace(id) {
  const under = loading.get(id);
  if (under) {
    again.add(id);
    return under;
  }
  const read = readSpace(id).finally(() => {
    loading.delete(id);
    if (again.delete(id) && store.me) return loadSpace(id);
  });
  loading.set(id, read);
  return read;
}

/** @param {string} id */
async function readSpace(id) {
  const mine = store.me?.id;
  const read = spaceReads.begin();
  try {
    const answered = await api.get(id);
    if (store.me?.id !== mine || read.number < shown || !answered.role) return;
    const space = brought(answered, store.spaces.get(id), read.told(id));
    if (space) putSpace(space, read.number);
  } catch {
    // Not ours (any more), or out of reach: the next full read of the list settles it.
  } finally {
    spaceReads.end(read);
  }
}

/**
 * Takes out a space that we are not in any more.
 * @param {string} id
 * @param {boolean} [tell]
 */
export function dropSpace(id, tell = true) {
  spaceReads.tell(id, () => undefined);
  forget(id, store.spaces.get(id), tell);
}

/** @param {string} id @param {Space|undefined} space @param {boolean} tell */
function forget(id, space, tell) {
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

/** Roles told while members are read, by space and account; null for who has left. @type {Meanwhile<[string, Role|null]>} */
const roles = new Meanwhile();
/** By space: the number of the read whose answer is shown. @type {Map<string, number>} */
const listed = new Map();

/** @param {string} id */
export async function loadMembers(id) {
  const mine = store.me?.id;
  const read = roles.begin();
  const seen = presenceReads.begin();
  try {
    const answered = await api.members(id);
    if (store.me?.id !== mine || read.number < (listed.get(id) ?? 0)) return;
    listed.set(id, read.number);
    for (const { account, name, handle, online } of answered) {
      if (name) learnPerson({ id: account, name, handle });
      if (online !== null && seen.told(account).length === 0) notePresence(account, online);
    }
    const members = new Map(answered.map((member) => [member.account, member.role]));
    for (const [account, role] of read.told(id)) setRole(members, account, role);
    store.members.set(id, members);
  } finally {
    roles.end(read);
    presenceReads.end(seen);
  }
  store.changed('members', id);
}

/**
 * Takes in the role of a member; null for who has left.
 * @param {string} space @param {string} account @param {Role|null} role
 */
export function putMember(space, account, role) {
  roles.tell(space, [account, role]);
  const members = store.members.get(space);
  if (!members) return;
  setRole(members, account, role);
  store.changed('members', space);
}

/** @param {Map<string, Role>} members @param {string} account @param {Role|null} role */
function setRole(members, account, role) {
  if (role === null) members.delete(account);
  else members.set(account, role);
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
