// Ids that a client gives to what it sends: they sort by time, and no two are alike.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uuid } from '../assets/api.js';

test('an id is a version 7 UUID of its time', () => {
  const id = uuid(0x0193_5a7b_cd12);
  assert.match(id, /^01935a7b-cd12-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test('ids sort by time', () => {
  const times = [0, 255, 256, 65_535, 65_536, 1_700_000_000_000, 1_700_000_000_001, 2 ** 48 - 1];
  const ids = times.map((time) => uuid(time));
  assert.deepEqual([...ids].sort(), ids);
});

test('ids of one millisecond differ', () => {
  assert.notEqual(uuid(1), uuid(1));
});
