// Who is online: what events say counts more than an answer that was on its way meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {} });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { applyEvent } = await import('../assets/state/events.js');
const { isOnline, readPresence } = await import('../assets/state/presence.js');

/** @param {string[]} accounts */
function answer(accounts) {
  const items = accounts.map((account) => ({ account, online: true }));
  return new Response(JSON.stringify({ items, next: null }), { headers: { 'content-type': 'application/json' } });
}

/** @param {string} account @param {boolean} online */
const tell = (account, online) => applyEvent({ type: 'presence', data: { account, online }, cursor: null });

test('an answer counts but for what was told since it was asked for', async () => {
  store.me = /** @type {any} */ ({ id: 'me' });
  let redrawn = 0;
  store.on('presence', () => (redrawn += 1));
  tell('old', true);
  tell('old', true);
  assert.equal(redrawn, 1);
  /** @type {(response: Response) => void} */
  let respond = () => {};
  globalThis.fetch = () => new Promise((resolve) => (respond = resolve));
  const read = readPresence();
  await new Promise((resolve) => setImmediate(resolve));
  tell('came', true);
  tell('left', false);
  respond(answer(['left', 'stayed']));
  await read;
  assert.deepEqual([...store.online].sort(), ['came', 'stayed']);
  assert.ok(isOnline('me') && isOnline('came') && !isOnline('left') && !isOnline('old'));
});

test('a failure leaves what is known', async () => {
  globalThis.fetch = async () => new Response('{}', { status: 404 });
  await readPresence();
  assert.ok(isOnline('came'));
  tell('came', false);
  assert.ok(!isOnline('came'));
});
