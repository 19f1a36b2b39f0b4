// What a timeline takes from a node that lags behind the client's last one.

import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = /** @type {any} */ ({ hidden: false, addEventListener() {} });
globalThis.location = /** @type {any} */ (new URL('http://a.example/'));
globalThis.localStorage = /** @type {any} */ ({ getItem: () => null, setItem() {} });
const { store } = await import('../assets/state/store.js');
const { applyEvent } = await import('../assets/state/events.js');

const message = (body, edited_at = null) => ({ id: 'm1', space: 's', author: 'other', body, edited_at, deleted: false });
const told = (type, data) => applyEvent(/** @type {any} */ ({ type, data }));
const says = () => {
  const [item] = store.timelines.get('s')?.items ?? [];
  return item?.deleted ? null : item?.body;
};

function begin() {
  store.me = /** @type {any} */ ({ id: 'me' });
  store.spaces.set('s', /** @type {any} */ ({ id: 's', unread: 0 }));
  store.timelines.set('s', /** @type {any} */ ({ items: [], state: 'ready', older: null }));
  told('message.created', message('one'));
}

test('an older edit does not take the place of a later one', () => {
  begin();
  told('message.edited', message('three', '2030-01-01T00:00:03.000Z'));
  told('message.edited', message('two', '2030-01-01T00:00:02.000Z'));
  assert.equal(says(), 'three');
  told('message.edited', message('four', '2030-01-01T00:00:03.000Z'));
  assert.equal(says(), 'four');
});

test('nor does an edit undo a deletion', () => {
  begin();
  told('message.deleted', { ...message('', null), deleted: true });
  told('message.edited', message('two', '2030-01-01T00:00:02.000Z'));
  assert.equal(says(), null);
});
