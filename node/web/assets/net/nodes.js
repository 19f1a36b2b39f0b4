// The nodes that this client could talk to: where they are, how far away, and which to try first.
// Their URLs (nothing else) are kept between visits, so that a client survives the loss of every router.

const KEY = 'mychat-nodes';
const KEPT = 64;
/** A node that failed this recently is tried after the others. */
const GRUDGE_MS = 60_000;

/**
 * @typedef {object} Known
 * @property {string} url
 * @property {number|null} latency
 * @property {number} failedAt
 * @property {boolean} refused It does not accept our session.
 */

export class Nodes {
  /** @type {Map<string, Known>} */
  #known = new Map();

  /**
   * @param {string} home Origin of the page.
   * @param {Storage|null} storage
   */
  constructor(home, storage) {
    this.home = home;
    this.storage = storage;
    this.#add(home);
    try {
      const saved = JSON.parse(storage?.getItem(KEY) ?? '[]');
      if (Array.isArray(saved)) for (const url of saved) this.#add(url);
    } catch {
      // A broken list is no list.
    }
  }

  /**
   * Takes in URLs of nodes that a node or a router has named.
   * @param {unknown[]} urls
   */
  learn(urls) {
    for (const url of urls) this.#add(url);
    try {
      this.storage?.setItem(KEY, JSON.stringify([...this.#known.keys()].slice(0, KEPT)));
    } catch {
      // Storage full or closed: the list lives as long as the page.
    }
  }

  /** @param {unknown} url */
  #add(url) {
    const normal = normalise(url, this.home);
    if (normal && !this.#known.has(normal) && this.#known.size < KEPT) {
      this.#known.set(normal, { url: normal, latency: null, failedAt: -Infinity, refused: false });
    }
  }

  /**
   * @param {string} url
   * @param {number} ms
   */
  answered(url, ms) {
    const node = this.#known.get(url);
    if (node) Object.assign(node, { latency: ms, failedAt: -Infinity });
  }

  /** @param {string} url */
  failed(url) {
    const node = this.#known.get(url);
    if (node) node.failedAt = Date.now();
  }

  /** @param {string} url */
  refused(url) {
    const node = this.#known.get(url);
    if (node) node.refused = true;
  }

  /** After a sign-in every node deserves a new try. */
  forgive() {
    for (const node of this.#known.values()) node.refused = false;
  }

  get urls() {
    return [...this.#known.keys()];
  }

  /**
   * Where to go when `from` is gone: the preferred ones, then the nearest by the last measurement, those that failed lately last.
   * @param {string} from
   * @param {unknown[]} [preferred]
   * @returns {string[]}
   */
  alternatives(from, preferred = []) {
    this.learn(preferred);
    const wanted = preferred.map((url) => normalise(url, this.home));
    const now = Date.now();
    /** @param {Known} node */
    const rank = (node) => {
      const preference = wanted.indexOf(node.url);
      if (preference >= 0) return -1000 + preference;
      return (now - node.failedAt < GRUDGE_MS ? 1e6 : 0) + (node.latency ?? 1e5);
    };
    return [...this.#known.values()]
      .filter((node) => node.url !== from && !node.refused)
      .sort((a, b) => rank(a) - rank(b))
      .map((node) => node.url);
  }
}

/**
 * The origin that a node's URL stands for, or null when it can't be used from this page.
 * Nodes of a development cluster may call themselves 127.0.0.1 while the page is open at localhost; a cookie belongs to one
 * of these names, so loopback names are replaced by the page's own.
 * @param {unknown} url
 * @param {string} home
 */
export function normalise(url, home) {
  if (typeof url !== 'string') return null;
  try {
    const parsed = new URL(url);
    if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') return null;
    const page = new URL(home);
    if (page.protocol === 'https:' && parsed.protocol === 'http:') return null;
    if (loopback(parsed.hostname) && loopback(page.hostname)) parsed.hostname = page.hostname;
    return parsed.origin;
  } catch {
    return null;
  }
}

/** @param {string} host */
function loopback(host) {
  return host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
