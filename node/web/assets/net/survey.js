// Keeps an eye on the nodes: measures the round trip to the one in use, so that the status line can show it and a dead node
// is noticed even when nothing is being sent, and learns from it and from its router where the others are.

import { net } from './net.js';

const PING_MS = 10_000;
const PING_HIDDEN_MS = 60_000;
/** The first measurement shares the line with the page's own loading. */
const PING_FIRST_MS = 1_500;
const LEARN_MS = 60_000;
/** One lost ping may be chance. */
const LOST = 2;

let lost = 0;
let started = false;
let learnt = '';
let learntAt = 0;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let timer;

/** Begins; once for the life of the page. */
export function startSurvey() {
  if (started) return;
  started = true;
  net.addEventListener('moved', () => tick());
  document.addEventListener('visibilitychange', () => document.hidden || tick());
  globalThis.addEventListener('online', () => tick());
  tick();
}

async function tick() {
  clearTimeout(timer);
  const first = net.connection.latency === null;
  timer = setTimeout(tick, first ? PING_FIRST_MS : document.hidden ? PING_HIDDEN_MS : PING_MS);
  const base = net.base;
  // The first round trip to a node pays for its connection as well; the second is the true one.
  if (first) await net.probe(base, '/livez');
  const ms = await net.probe(base, '/livez');
  if (net.base !== base) return;
  if (ms === null) {
    lost += 1;
    if (lost >= LOST) {
      lost = 0;
      await net.moveAway(base);
    }
    return;
  }
  lost = 0;
  net.update({ latency: ms });
  if (learnt !== base || Date.now() - learntAt > LEARN_MS) await learn(base);
}

/**
 * Asks a node, and the router that it knows, for the others.
 * @param {string} base
 */
async function learn(base) {
  learnt = base;
  learntAt = Date.now();
  const node = await ask(`${base}/v1/node`);
  if (!node) return;
  if (net.base === base && typeof node.region === 'string') net.update({ region: node.region });
  net.nodes.learn(list(node.peers).map((peer) => peer?.url));
  if (typeof node.router_url === 'string' && node.router_url) {
    const route = await ask(`${node.router_url.replace(/\/$/, '')}/v1/route`);
    net.nodes.learn(list(route?.nodes).map((found) => found?.url));
  }
  // Measured now, while all is well: when the node goes away there is no time for it.
  for (const url of net.nodes.urls) if (url !== net.base) await net.probe(url, '/livez');
}

/**
 * @param {string} url
 * @returns {Promise<any>}
 */
async function ask(url) {
  try {
    const response = await fetch(url, { credentials: 'omit', cache: 'no-store', signal: AbortSignal.timeout(5000) });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/**
 * @param {unknown} value
 * @returns {any[]}
 */
function list(value) {
  return Array.isArray(value) ? value : [];
}
