// The server's API as typed calls. Answers are brought into the client's own shapes here, so that the rest of the client
// need not care about missing optional fields.

import { net } from './net/net.js';

/** @typedef {import('./types.js').Account} Account */
/** @typedef {import('./types.js').Message} Message */
/** @typedef {import('./types.js').Space} Space */
/** @typedef {import('./types.js').Member} Member */
/** @typedef {import('./types.js').Role} Role */

/**
 * @template T
 * @typedef {{items: T[], next: string|null}} Page
 */

/**
 * Version 7 UUID (RFC 9562): the time, then chance. Such ids sort by time, so what nodes look up for a new one is where
 * the last ones were put. (`crypto.randomUUID` gives version 4, and only on https and loopback pages.)
 */
export function uuid(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let at = 0, time = now; at < 6; at += 1, time = Math.floor(time / 256)) bytes[5 - at] = time % 256;
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** @param {string} part */
const at = (part) => encodeURIComponent(part);

/**
 * A POST that may be repeated at another node without being done twice.
 * @param {string} path
 * @param {unknown} [body]
 */
const post = (path, body) => net.request('POST', path, { body, headers: { 'Idempotency-Key': uuid() } });

/**
 * @param {any} value
 * @returns {string}
 */
function idOf(value) {
  if (typeof value === 'string') return value;
  return typeof value?.id === 'string' ? value.id : '';
}

/**
 * @param {any} raw
 * @returns {Message}
 */
export function asMessage(raw) {
  return {
    id: raw.id,
    space: idOf(raw.space),
    author: idOf(raw.author),
    body: raw.body ?? '',
    html: raw.html ?? '',
    sent_at: raw.sent_at ?? new Date().toISOString(),
    edited_at: raw.edited_at ?? null,
    deleted: Boolean(raw.deleted),
    reply_to: raw.reply_to ?? null,
    reactions: raw.reactions ?? {},
    client_id: raw.client_id ?? null,
  };
}

/**
 * @param {any} raw
 * @returns {Space}
 */
export function asSpace(raw) {
  return {
    id: raw.id,
    name: raw.name ?? '',
    topic: raw.topic ?? null,
    visibility: raw.visibility ?? 'private',
    created_at: raw.created_at,
    role: raw.role ?? null,
    unread: raw.unread ?? 0,
    last: idOf(raw.last_message) || null,
  };
}

/**
 * @param {any} raw
 * @returns {Member}
 */
export function asMember(raw) {
  return {
    account: idOf(raw.account) || idOf(raw),
    role: raw.role ?? 'member',
    name: raw.name ?? raw.account?.name ?? null,
    handle: raw.handle ?? raw.account?.handle ?? null,
    online: raw.online ?? null,
  };
}

/**
 * @template T
 * @param {any} data
 * @param {(raw: any) => T} as
 * @returns {Page<T>}
 */
function page(data, as) {
  const items = Array.isArray(data) ? data : (data?.items ?? []);
  return { items: items.map(as), next: data?.next ?? null };
}

/**
 * Every page of a list, up to a bound that no real list of this kind passes.
 * @template T
 * @param {string} path
 * @param {(raw: any) => T} as
 * @returns {Promise<T[]>}
 */
async function all(path, as) {
  /** @type {T[]} */
  const items = [];
  /** @type {string|null} */
  let next = null;
  do {
    const query = new URLSearchParams({ limit: '200' });
    if (next) query.set('cursor', next);
    const { data } = await net.request('GET', `${path}${path.includes('?') ? '&' : '?'}${query}`);
    const got = page(data, as);
    items.push(...got.items);
    next = got.items.length > 0 ? got.next : null;
  } while (next && items.length < 10_000);
  return items;
}

export const accounts = {
  /** @param {{email: string, password: string, name: string}} form @returns {Promise<Account>} */
  async create(form) {
    const { data } = await net.request('POST', '/v1/accounts', { body: form, auth: false, repeat: false });
    return data.account;
  },
  /** @param {{email: string, password: string}} form @returns {Promise<Account>} */
  async signIn(form) {
    const { data } = await net.request('POST', '/v1/sessions', { body: form, auth: false });
    return data.account;
  },
  signOut: () => net.request('DELETE', '/v1/sessions/current', { auth: false }),
  /** @returns {Promise<Account>} */
  me: async () => (await net.request('GET', '/v1/accounts/me', { auth: false })).data,
  /** @param {{name?: string, handle?: string|null}} change @returns {Promise<Account>} */
  update: async (change) => (await net.request('PATCH', '/v1/accounts/me', { body: change })).data,
  /** @param {string} id @returns {Promise<Account>} */
  get: async (id) => (await net.request('GET', `/v1/accounts/${at(id)}`)).data,
};

export const spaces = {
  mine: () => all('/v1/spaces', asSpace),
  open: () => all('/v1/spaces?visibility=public', asSpace),
  /** @param {string} id */
  get: async (id) => asSpace((await net.request('GET', `/v1/spaces/${at(id)}`)).data),
  /** @param {{name: string, topic?: string, visibility: string}} form */
  create: async (form) => asSpace((await post('/v1/spaces', form)).data),
  /** @param {string} account */
  direct: async (account) => asSpace((await post('/v1/spaces/direct', { accounts: [account] })).data),
  /** @param {string} id @param {{name?: string, topic?: string, visibility?: string}} change */
  update: async (id, change) => asSpace((await net.request('PATCH', `/v1/spaces/${at(id)}`, { body: change })).data),
  /** @param {string} id */
  remove: (id) => net.request('DELETE', `/v1/spaces/${at(id)}`),
  /** @param {string} id */
  members: (id) => all(`/v1/spaces/${at(id)}/members`, asMember),
  /** @param {string} id @param {string} account @param {Role} role */
  setMember: (id, account, role) =>
    net.request('PUT', `/v1/spaces/${at(id)}/members/${at(account)}`, { body: { role } }),
  /** Without a role, so that whoever is in already keeps theirs. @param {string} id */
  join: (id) => net.request('PUT', `/v1/spaces/${at(id)}/members/me`, { body: {} }),
  /** @param {string} id @param {string} account `me` to leave */
  removeMember: (id, account) => net.request('DELETE', `/v1/spaces/${at(id)}/members/${at(account)}`),
  /** @param {string} id @param {string} handle */
  inviteHandle: async (id, handle) => (await post(`/v1/spaces/${at(id)}/invitations`, { handle })).data,
  /** @param {string} id @returns {Promise<{token: string, url: string, expires_at?: string}>} */
  inviteLink: async (id) => (await post(`/v1/spaces/${at(id)}/invitations`, { link: true })).data,
  /** @param {string} token */
  accept: async (token) => asSpace((await post(`/v1/invitations/${at(token)}/accept`)).data),
  /** @param {string} id @param {string} message */
  read: (id, message) => net.request('PUT', `/v1/spaces/${at(id)}/read`, { body: { message } }),
  /** @param {string} id */
  typing: (id) => net.request('POST', `/v1/spaces/${at(id)}/typing`),
};

export const presence = {
  /** Ids of those who are online. */
  online: () => all('/v1/presence', (raw) => idOf(raw.account)),
};

/** @param {string} space @param {string} [message] */
const messagePath = (space, message) => `/v1/spaces/${at(space)}/messages${message ? `/${at(message)}` : ''}`;

export const messages = {
  /**
   * Newest first.
   * @param {string} space @param {string|null} cursor @param {number} limit
   */
  async history(space, cursor, limit) {
    const query = new URLSearchParams({ order: 'desc', limit: String(limit) });
    if (cursor) query.set('cursor', cursor);
    return page((await net.request('GET', `${messagePath(space)}?${query}`)).data, asMessage);
  },
  /** @param {string} space @param {string} id */
  get: async (space, id) => asMessage((await net.request('GET', messagePath(space, id))).data),
  /** @param {string} space @param {{body: string, client_id: string, reply_to?: string}} draft */
  send: async (space, draft) => asMessage((await net.request('POST', messagePath(space), { body: draft })).data),
  /** @param {string} space @param {string} id @param {string} body */
  edit: async (space, id, body) =>
    asMessage((await net.request('PATCH', messagePath(space, id), { body: { body } })).data),
  /** @param {string} space @param {string} id */
  remove: (space, id) => net.request('DELETE', messagePath(space, id)),
  /** @param {string} space @param {string} id @param {string} emoji @param {boolean} on */
  react: (space, id, emoji, on) =>
    net.request(on ? 'PUT' : 'DELETE', `${messagePath(space, id)}/reactions/${at(emoji)}`),
};
