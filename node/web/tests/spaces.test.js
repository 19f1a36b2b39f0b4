// Spaces and their members: what events say counts more than an answer that was on its way meanwhile, and of two reads the
// later one.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {} });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { applyEvent } = await import('../assets/state/events.js');
const { watch } = await import('../assets/state/reading.js');
const { loadMembers, loadSpaces } = await import('../assets/state/spaces.js');

/** The calls that wait for an answer. @type {{path: string, answer: (body: unknown) => void}[]} */
let calls = [];
const turn = () => new Promise((resolve) => setImmediate(resolve));
const told = (type, data) => applyEvent(/** @type {any} */ ({ type, data }));
const space = (id, unread = 0, last = null) => ({ id, name: id, visibility: 'public', role: 'member', unread, last_message: last });
const list = (...items) => ({ items, next: null });
const message = (id, author = 'other') => ({ id, space: 's', author, body: id });

/** The oldest call to a path. @param {string} path */
function call(path) {
  const at = calls.findIndex((one) => one.path === path);
  assert.ok(at >= 0, `${path} is asked for`);
  return calls.splice(at, 1)[0];
}

beforeEach(() => {
  calls = [];
  globalThis.fetch = (url) =>
    new Promise((resolve) => {
      const answer = (body) =>
        resolve(new Response(JSON.stringify(body), { headers: { 'content-type': 'application/json' } }));
      calls.push({ path: new URL(url).pathname, answer });
    });
  store.clear();
  store.me = /** @type {any} */ ({ id: 'me' });
  store.spaces.set('s', /** @type {any} */ ({ id: 's', name: 's', visibility: 'public', role: 'member', unread: 0, last: 'm1' }));
  store.open = null;
  watch(null);
});

test('messages that come while the list is read are counted on top of the answer', async () => {
  const read = loadSpaces();
  await turn();
  told('message.created', message('m5'));
  told('message.created', message('m6'));
  told('message.created', message('m7', 'me'));
  call('/v1/spaces').answer(list(space('s', 3, 'm5')));
  await read;
  assert.deepEqual([store.spaces.get('s')?.unread, store.spaces.get('s')?.last], [4, 'm7']);
});

test('what was read elsewhere, while the list was read, stays read', async () => {
  const read = loadSpaces();
  await turn();
  told('read', { account: 'me', space: 's', message: 'm5', unread: 0 });
  call('/v1/spaces').answer(list(space('s', 3, 'm5')));
  await read;
  assert.equal(store.spaces.get('s')?.unread, 0);
});

test('a space on the screen stays read', async () => {
  store.timelines.set('s', /** @type {any} */ ({ items: [], state: 'ready', older: null }));
  watch('s');
  const read = loadSpaces();
  await turn();
  call('/v1/spaces').answer(list(space('s', 3, 'm5')));
  await read;
  assert.equal(store.spaces.get('s')?.unread, 0);
});

test('a space joined while the list is read stays, and one that was left stays away', async () => {
  store.open = 'new';
  const read = loadSpaces();
  await turn();
  told('member.added', { space: 'new', account: 'me' });
  told('member.removed', { space: 's', account: 'me' });
  await turn();
  call('/v1/spaces/new').answer(space('new'));
  await turn();
  call('/v1/spaces').answer(list(space('s')));
  await read;
  assert.deepEqual([...store.spaces.keys()], ['new']);
});

test('of what nothing was told, the answer counts', async () => {
  store.spaces.set('gone', /** @type {any} */ ({ id: 'gone', unread: 0 }));
  const read = loadSpaces();
  await turn();
  call('/v1/spaces').answer(list(space('s', 2, 'm3'), space('other')));
  await read;
  assert.deepEqual([...store.spaces.keys()], ['s', 'other']);
  assert.equal(store.spaces.get('s')?.unread, 2);
});

test('of two reads of the list the later one counts, also if it is answered first', async () => {
  const first = loadSpaces();
  await turn();
  const early = call('/v1/spaces');
  const second = loadSpaces();
  await turn();
  call('/v1/spaces').answer(list(space('s', 2, 'm3'), space('other')));
  await second;
  early.answer(list(space('s')));
  await first;
  assert.deepEqual([...store.spaces.keys()], ['s', 'other']);
  assert.equal(store.spaces.get('s')?.unread, 2);
});

test('a space is read again if that is asked for while it is read', async () => {
  told('member.added', { space: 'new', account: 'me' });
  await turn();
  told('member.removed', { space: 'new', account: 'me' });
  told('member.added', { space: 'new', account: 'me' });
  call('/v1/spaces/new').answer(space('new', 1));
  await turn();
  await turn();
  assert.ok(!store.spaces.has('new'));
  call('/v1/spaces/new').answer(space('new', 2));
  await turn();
  await turn();
  assert.equal(store.spaces.get('new')?.unread, 2);
});

test('members who come and go while the members are read are kept, and the later read counts', async () => {
  const first = loadMembers('s');
  await turn();
  const early = call('/v1/spaces/s/members');
  const second = loadMembers('s');
  await turn();
  told('member.added', { space: 's', account: 'came', role: 'admin' });
  told('member.removed', { space: 's', account: 'left' });
  call('/v1/spaces/s/members').answer(list({ account: 'left', role: 'member' }, { account: 'me', role: 'owner' }));
  await second;
  early.answer(list({ account: 'old', role: 'member' }));
  await first;
  assert.deepEqual([...(store.members.get('s') ?? [])], [['me', 'owner'], ['came', 'admin']]);
});

test('who came or went while the members are read is online or not, as was told', async () => {
  const read = loadMembers('s');
  await turn();
  told('presence', { account: 'came', online: true });
  told('presence', { account: 'went', online: false });
  const member = (account, online) => ({ account, role: 'member', online });
  call('/v1/spaces/s/members').answer(list(member('came', false), member('went', true), member('stays', true)));
  await read;
  assert.deepEqual([...store.online], ['came', 'stays']);
});
