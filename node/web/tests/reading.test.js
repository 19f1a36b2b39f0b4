// What counts as read: only what was on the screen.

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {} });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { watch } = await import('../assets/state/reading.js');

test('what arrives after one has left is not marked as read', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const marks = [];
  globalThis.fetch = async (url, options = {}) => {
    if (options.method === 'PUT') marks.push(JSON.parse(options.body).message);
    return new Response(null, { status: 204 });
  };
  store.me = /** @type {any} */ ({ id: 'me' });
  store.spaces.set('s', /** @type {any} */ ({ id: 's', unread: 1, last: 'm1' }));
  const items = [{ id: 'm1', author: 'other' }];
  store.timelines.set('s', /** @type {any} */ ({ items }));
  watch('s');
  watch(null);
  items.push({ id: 'm2', author: 'other' });
  mock.timers.tick(5000);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(marks, ['m1']);
  mock.timers.reset();
});
