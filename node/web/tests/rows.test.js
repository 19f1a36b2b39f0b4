// What of a long timeline is looked at to draw its end.

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {}, documentElement: { lang: 'en' } });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { countAfter, rowsOf } = await import('../assets/ui/rows.js');

store.me = /** @type {any} */ ({ id: 'me', name: 'Me' });
store.people.set('me', /** @type {any} */ (store.me));
store.people.set('other', /** @type {any} */ ({ id: 'other', name: 'Other' }));

const LENGTH = 10_000;
let looked = 0;
const id = (number) => `m${String(number).padStart(6, '0')}`;
const items = Array.from({ length: LENGTH }, (_, at) => ({
  get id() {
    looked += 1;
    return id(at);
  },
  space: 's',
  author: at % 2 === 0 ? 'me' : 'other',
  body: `text ${at}`,
  html: '',
  sent_at: '2030-01-01T00:00:00.000Z',
  edited_at: null,
  deleted: at === 7,
  reply_to: { 9_999: id(9_990), 9_998: id(5), 9_997: id(7), 9_996: 'm000005x' }[at] ?? null,
  reactions: {},
  client_id: null,
}));
const timeline = /** @type {any} */ ({ items, older: null, state: 'ready', newFrom: null });

test('the last messages and those that they answer are looked at, and no others', () => {
  looked = 0;
  const rows = rowsOf(timeline, [], 10).filter((row) => row.kind === 'message');
  assert.ok(looked < 500, `${looked}`);
  const quotes = rows.map((row) => (row.kind === 'message' ? row.quote : '')).slice(-4);
  assert.deepEqual(quotes, ['An earlier message', 'A deleted message', 'Other: text 5', 'Me: text 9990']);
});

test('what has come since is counted from the end', () => {
  looked = 0;
  assert.equal(countAfter(/** @type {any} */ (items), id(9_979)), 10);
  assert.ok(looked < 100, `${looked}`);
  assert.equal(countAfter(/** @type {any} */ (items), ''), LENGTH / 2);
});
