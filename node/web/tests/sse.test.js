// The event stream parser: lines of every kind, cut anywhere.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SseParser } from '../assets/net/sse.js';

const bytes = (text) => new TextEncoder().encode(text);

test('an event has its type, data and id', () => {
  const events = new SseParser().push(bytes('id: c1\nevent: typing\ndata: {"a":1}\n\n'));
  assert.deepEqual(events, [{ type: 'typing', data: '{"a":1}', id: 'c1' }]);
});

test('an event without an id has none of an earlier one', () => {
  const events = new SseParser().push(bytes('id: c1\ndata: x\n\ndata: y\n\n'));
  assert.deepEqual(events.map((event) => event.id), ['c1', null]);
});

test('comments, unknown fields and events without data are passed over', () => {
  const parser = new SseParser();
  const events = parser.push(bytes(': hello\nnonsense\nfoo: bar\nevent: x\n\nretry: 1500\nretry: soon\ndata: y\n\n'));
  assert.deepEqual(events, [{ type: 'message', data: 'y', id: null }]);
  assert.equal(parser.retry, 1500);
});

test('lines of data are joined, and only one space is taken off', () => {
  const [event] = new SseParser().push(bytes('data:  a\ndata:b\ndata\n\n'));
  assert.equal(event.data, ' a\nb\n');
});

test('however the bytes are cut, the events are the same', () => {
  const text = 'id: 1\r\nevent: a\r\ndata: grüße 🎉\r\n\r\nid: 2\rdata: two\r\rdata: three\n\n';
  const whole = new SseParser().push(bytes(text));
  assert.equal(whole.length, 3);
  const all = bytes(text);
  for (let size = 1; size < all.length; size++) {
    const parser = new SseParser();
    const events = [];
    for (let at = 0; at < all.length; at += size) events.push(...parser.push(all.subarray(at, at + size)));
    assert.deepEqual(events, whole, `in pieces of ${size}`);
  }
});
