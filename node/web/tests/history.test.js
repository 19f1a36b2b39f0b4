// Reading the history: no gap between what is read and what events bring, and no answer undoes what they said meanwhile.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {} });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { applyEvent } = await import('../assets/state/events.js');
const { loadNewest, loadOlder, reread, timelineOf, visit } = await import('../assets/state/timeline.js');

/** The reads that wait for an answer. @type {{cursor: string|null, answer: (...page: any[]) => Promise<void>}[]} */
let reads = [];
const turn = () => new Promise((resolve) => setImmediate(resolve));
const told = (type, data) => applyEvent(/** @type {any} */ ({ type, data: { space: 's', ...data } }));
const id = (number) => `m${String(number).padStart(6, '0')}`;
const message = (number, more = {}) => ({ id: id(number), space: 's', author: 'other', body: id(number), ...more });
const says = (number) => told('message.created', message(number));
const held = () => timelineOf('s').items.map((item) => Number(item.id.slice(1)));
const item = (number) => timelineOf('s').items.find((one) => one.id === id(number));

/** From the newest to the oldest. */
function page(from, to, next = id(to)) {
  return [Array.from({ length: from - to + 1 }, (_, at) => message(from - at)), next];
}

beforeEach(() => {
  reads = [];
  globalThis.fetch = (url) =>
    new Promise((resolve) => {
      const answer = async (items, next) => {
        const headers = { 'content-type': 'application/json' };
        resolve(new Response(JSON.stringify({ items, next }), { headers }));
        for (let turns = 0; turns < 4; turns += 1) await turn();
      };
      const { pathname, searchParams } = new URL(url);
      if (pathname.endsWith('/messages')) reads.push({ cursor: searchParams.get('cursor'), answer });
    });
  store.clear();
  store.me = /** @type {any} */ ({ id: 'me' });
  store.spaces.set('s', /** @type {any} */ ({ id: 's', unread: 0, last: null }));
  store.open = 's';
});

/** A timeline that holds these, and whatever is older is not read. */
async function begin(from, to) {
  loadNewest('s');
  await turn();
  await reads.shift()?.answer(...page(from, to));
}

test('a read that is overtaken by a gap in the events is read again', async () => {
  loadNewest('s');
  await turn();
  reread();
  says(9);
  await reads.shift()?.answer(...page(3, 1, null));
  assert.equal(reads.length, 1);
  await reads.shift()?.answer(...page(9, 1, null));
  assert.deepEqual(held(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal(reads.length, 0);
});

test('what events bring over a gap does not bridge it', async () => {
  await begin(5, 3);
  reread();
  await turn();
  says(20);
  says(21);
  await reads.shift()?.answer(...page(20, 18));
  assert.deepEqual(held(), [18, 19, 20, 21]);
  assert.equal(timelineOf('s').older, id(18));
});

test('nor does it where the first read was overtaken', async () => {
  loadNewest('s');
  await turn();
  reread();
  says(20);
  await reads.shift()?.answer(...page(3, 1));
  await reads.shift()?.answer(...page(20, 18));
  assert.deepEqual(held(), [18, 19, 20]);
  assert.equal(timelineOf('s').older, id(18));
});

test('what is said of a message while it is read is not undone', async () => {
  loadNewest('s');
  await turn();
  told('message.deleted', { id: id(1) });
  told('reaction.added', { message: id(2), emoji: '+1', account: 'other' });
  told('message.edited', message(3, { body: 'edited', edited_at: '2030-01-01T00:00:00Z' }));
  told('message.created', { ...message(5), replaces: [id(4)] });
  await reads.shift()?.answer(...page(4, 1, null));
  assert.deepEqual(held(), [1, 2, 3, 5]);
  assert.equal(item(1)?.deleted, true);
  assert.deepEqual(item(2)?.reactions, { '+1': ['other'] });
  assert.equal(item(3)?.body, 'edited');
});

test('nor is it on an older page', async () => {
  await begin(9, 7);
  loadOlder('s');
  await turn();
  assert.equal(reads[0]?.cursor, id(7));
  told('message.deleted', { id: id(5) });
  told('message.edited', message(4, { body: 'edited', edited_at: '2030-01-01T00:00:00Z' }));
  await reads.shift()?.answer(...page(6, 4));
  assert.deepEqual(held(), [4, 5, 6, 7, 8, 9]);
  assert.deepEqual([item(5)?.deleted, item(4)?.body], [true, 'edited']);
});

test('an older page that comes after a gap is left out', async () => {
  await begin(9, 7);
  loadOlder('s');
  await turn();
  const late = reads.shift();
  reread();
  await turn();
  await reads.shift()?.answer(...page(30, 28));
  await late?.answer(...page(6, 4));
  assert.deepEqual(held(), [28, 29, 30]);
  assert.equal(timelineOf('s').older, id(28));
});

test('of a timeline that nobody reads further back, the latest are held, and paging goes on before them', async () => {
  await begin(100, 51);
  for (let number = 101; number <= 1_700; number += 1) says(number);
  const [first] = held();
  assert.ok(held().length <= 1_200);
  assert.deepEqual(held(), Array.from({ length: 1_700 - first + 1 }, (_, at) => first + at));
  assert.equal(timelineOf('s').older, id(first));
  says(first - 1);
  assert.equal(held()[0], first);
  loadOlder('s');
  await turn();
  assert.equal(reads[0]?.cursor, id(first));
  for (let number = 1_701; number <= 2_500; number += 1) says(number);
  await reads.shift()?.answer(...page(first - 1, first - 50));
  assert.deepEqual(held(), Array.from({ length: 2_500 - first + 51 }, (_, at) => first - 50 + at));
});

test('what somebody reads further back stays, within bounds, until the space is left', async () => {
  await begin(100, 51);
  timelineOf('s').back = true;
  for (let number = 101; number <= 3_000; number += 1) says(number);
  assert.equal(held()[0], 51);
  for (let number = 3_001; number <= 8_000; number += 1) says(number);
  assert.ok(held().length <= 6_200);
  store.open = 'other';
  visit('other');
  assert.equal(held().length, 1_000);
  assert.equal(timelineOf('s').older, id(7_001));
});

test('the timelines of the last spaces visited are held', () => {
  for (let number = 1; number <= 20; number += 1) visit(`space ${number}`);
  visit('space 13');
  visit('space 21');
  assert.equal(store.timelines.size, 8);
  assert.ok(store.timelines.has('space 13') && !store.timelines.has('space 14'));
});
