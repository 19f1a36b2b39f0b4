// Moving between nodes: requests and the stream go on at another node, from where they were.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Net } from '../assets/net/net.js';
import { Problem, Unreachable } from '../assets/net/problem.js';
import { EventStream } from '../assets/net/stream.js';

const A = 'http://a.example';
const B = 'http://b.example';

/** A net of two nodes, and what they are asked; `answer` says what they answer, or throws when one is away. */
function cluster(answer) {
  const calls = [];
  globalThis.fetch = async (url, options = {}) => {
    const { origin, pathname } = new URL(url);
    const call = { base: origin, path: pathname, ...options };
    calls.push(call);
    return answer(call);
  };
  const net = new Net(A, null);
  net.nodes.learn([B]);
  return { net, calls };
}

const json = (status, body, headers = {}) => new Response(JSON.stringify(body), { status, headers });
const away = () => {
  throw new TypeError('fetch failed');
};

test('a request that fails is sent again to another node, the same', async () => {
  const { net, calls } = cluster(({ base }) => (base === A ? away() : json(200, { from: base })));
  const { data } = await net.request('POST', '/v1/x', { body: { client_id: 'c' }, headers: { 'Idempotency-Key': 'k' } });
  assert.equal(data.from, B);
  assert.equal(net.base, B);
  const sent = calls.filter((call) => call.path === '/v1/x');
  assert.deepEqual(sent.map((call) => call.base), [A, B]);
  assert.equal(sent[0].body, sent[1].body);
  assert.equal(sent[0].headers['Idempotency-Key'], sent[1].headers['Idempotency-Key']);
});

test('when no node answers, that is said', async () => {
  const { net } = cluster(away);
  await assert.rejects(net.request('GET', '/v1/x'), Unreachable);
  assert.equal(net.base, A);
});

test('what must not be sent twice is not', async () => {
  const { net, calls } = cluster(({ path }) => (path === '/v1/accounts' ? away() : json(200, {})));
  await assert.rejects(net.request('POST', '/v1/accounts', { repeat: false }), Unreachable);
  assert.equal(calls.filter((call) => call.path === '/v1/accounts').length, 1);
});

test('a refusal is an answer and moves nobody', async () => {
  const { net } = cluster(() => json(409, { code: 'conflict', detail: 'taken' }));
  const error = await net.request('PATCH', '/v1/x', { body: {} }).catch((problem) => problem);
  assert.ok(error instanceof Problem);
  assert.equal(error.code, 'conflict');
  assert.equal(net.base, A);
});

test('reads at the new node name the last write at the old one', async () => {
  let down = false;
  const { net, calls } = cluster(({ base }) => (base === A && down ? away() : json(200, {}, { 'MyChat-Cursor': 'w1' })));
  await net.request('POST', '/v1/x', { body: {} });
  net.saw('e1', { base: B, written: false });
  down = true;
  await net.request('GET', '/v1/y');
  assert.equal(calls.at(-1).base, B);
  assert.equal(calls.at(-1).headers['MyChat-After'], 'w1');
});

test('another node that does not know us is left; at home it is the end of the session', async () => {
  const { net } = cluster(({ base, path }) => (path.startsWith('/v1/') ? json(401, {}) : json(200, { base })));
  let ended = 0;
  net.addEventListener('unauthorized', () => ended++);
  net.update({ base: B });
  await assert.rejects(net.request('GET', '/v1/x'), Problem);
  assert.equal(net.base, A);
  assert.equal(ended, 1);
});

test('the stream goes on at another node from its cursor', async () => {
  const event = (id, type, data) => `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
  let open = true;
  const { net, calls } = cluster(({ base, path }) => {
    if (path !== '/v1/events') return base === A && !open ? away() : json(200, {});
    if (base === A && !open) return away();
    const text = base === A
      ? event('c1', 'ready', { region: 'a', cursor: 'c1' }) + event('c2', 'message.created', { id: 'm1' })
      : event('c2', 'ready', { region: 'b', cursor: 'c9' }) + event('c3', 'message.created', { id: 'm2' });
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        if (base === A) {
          open = false;
          controller.close();
        }
      },
    });
    return new Response(body);
  });
  const seen = [];
  await new Promise((resolve) => {
    const stream = new EventStream(net, null, (got) => {
      if (got.type === 'message.created') seen.push(got.data.id);
      if (seen.length === 2) {
        stream.stop();
        resolve();
      }
    });
    stream.run();
  });
  assert.deepEqual(seen, ['m1', 'm2']);
  assert.equal(net.base, B);
  assert.equal(net.connection.region, 'b');
  assert.equal(calls.findLast((call) => call.path === '/v1/events').headers['Last-Event-ID'], 'c2');
});

test('a goodbye is followed to the alternative that it names', async () => {
  const C = 'http://c.example';
  const { net } = cluster(({ base, path }) => {
    if (path !== '/v1/events') return json(200, {});
    const [type, data] = base === A ? ['goodbye', { alternatives: [C] }] : ['ready', { region: new URL(base).hostname }];
    return new Response(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
  });
  net.nodes.answered(B, 1);
  await new Promise((resolve) => {
    const stream = new EventStream(net, null, () => {
      stream.stop();
      resolve();
    });
    stream.run();
  });
  assert.equal(net.base, C);
});

test('a node that is full is left for one that it names', async () => {
  const C = 'http://c.example';
  const { net } = cluster(({ base, path }) => {
    if (path !== '/v1/events') return json(200, {});
    if (base === A) return json(503, { code: 'unavailable', alternatives: [C] });
    return new Response(`event: ready\ndata: {"region": "${new URL(base).hostname}"}\n\n`);
  });
  net.nodes.answered(B, 1);
  await new Promise((resolve) => {
    const stream = new EventStream(net, null, () => {
      stream.stop();
      resolve();
    });
    stream.run();
  });
  assert.equal(net.base, C);
});

test('a cursor that no node can read is given up, and everything read anew', async () => {
  const { net, calls } = cluster(({ path, headers }) => {
    if (path === '/v1/events' && headers['Last-Event-ID']) return json(400, { code: 'invalid_cursor' });
    if (path === '/v1/y' && headers['MyChat-After']) return json(400, { code: 'invalid_cursor' });
    if (path !== '/v1/events') return json(200, {}, { 'MyChat-Cursor': 'old' });
    return new Response('id: new\nevent: ready\ndata: {"region": "a"}\n\n');
  });
  const types = [];
  await new Promise((resolve) => {
    const stream = new EventStream(net, 'old', ({ type }) => {
      types.push(type);
      if (type === 'ready') {
        stream.stop();
        resolve();
      }
    });
    stream.run();
  });
  assert.deepEqual(types, ['reset', 'ready']);
  await net.request('POST', '/v1/x', { body: {} });
  const { status } = await net.request('GET', '/v1/y');
  assert.equal(status, 200);
  assert.deepEqual(calls.filter(({ path }) => path === '/v1/y').map(({ headers }) => headers['MyChat-After']), ['old', undefined]);
});
