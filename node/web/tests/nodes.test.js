// Which nodes are known, and which is tried first.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff } from '../assets/net/backoff.js';
import { Nodes, normalise } from '../assets/net/nodes.js';

const HOME = 'https://fra.chat.example';

test('the nearest comes first, those that failed lately last, those that refused us not at all', () => {
  const nodes = new Nodes(HOME, null);
  const [near, far, unknown, failed, refused] = ['near', 'far', 'unknown', 'failed', 'refused'].map((name) => `https://${name}.chat.example`);
  nodes.learn([refused, failed, unknown, far, near]);
  nodes.answered(far, 200);
  nodes.answered(near, 20);
  nodes.answered(failed, 1);
  nodes.failed(failed);
  nodes.refused(refused);
  assert.deepEqual(nodes.alternatives(HOME), [near, far, unknown, failed]);
  assert.deepEqual(nodes.alternatives(HOME, [`${unknown}/`]), [unknown, near, far, failed]);
  assert.ok(nodes.alternatives(near).includes(HOME));
  nodes.forgive();
  assert.ok(nodes.alternatives(HOME).includes(refused));
});

test('only URLs are kept, and a broken list is no list', () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  new Nodes(HOME, storage).learn(['https://iad.chat.example/path?x=1', 'nonsense', 7]);
  assert.deepEqual([...kept.values()], [JSON.stringify([HOME, 'https://iad.chat.example'])]);
  assert.deepEqual(new Nodes(HOME, storage).urls, [HOME, 'https://iad.chat.example']);
  kept.set([...kept.keys()][0], '{"no');
  assert.deepEqual(new Nodes(HOME, storage).urls, [HOME]);
});

test('a URL that the page can not use is none', () => {
  assert.equal(normalise('http://iad.chat.example', HOME), null);
  assert.equal(normalise('javascript:alert(1)', HOME), null);
  assert.equal(normalise(undefined, HOME), null);
});

test('names of the loopback are one', () => {
  assert.equal(normalise('http://127.0.0.1:8082', 'http://localhost:8081'), 'http://localhost:8082');
  assert.equal(normalise('http://10.0.0.1:8082', 'http://localhost:8081'), 'http://10.0.0.1:8082');
});

test('waits double up to half a minute, and half of each is chance', () => {
  assert.equal(backoff(0, 500, () => 0), 250);
  assert.equal(backoff(3, 500, () => 0), 2000);
  assert.equal(backoff(99, 500, () => 0), 15_000);
  assert.ok(backoff(99, 500, () => 0.999999) <= 30_000);
});
