// All that the page knows, in one place. The other modules of this folder change it and announce what they changed by a
// topic; the elements on the screen listen to the topics that they show.

/** @typedef {import('../types.js').Account} Account */
/** @typedef {import('../types.js').Space} Space */
/** @typedef {import('../types.js').Timeline} Timeline */
/** @typedef {import('../types.js').Pending} Pending */
/** @typedef {import('../types.js').Role} Role */

/**
 * session: who is signed in, or which screen shows · spaces: the list, names, unread counts · route: which space is open ·
 * timeline: messages of a space · people: names · members: of a space · typing: in a space · presence: who is online · connection: region, latency,
 * state · toast: something to tell the person · announce: something for screen readers only
 * @typedef {'session'|'spaces'|'route'|'timeline'|'people'|'members'|'typing'|'presence'|'connection'|'toast'|'announce'} Topic
 */

class Store {
  #target = new EventTarget();

  /** @type {'starting'|'unreachable'|'auth'|'chat'} */
  screen = 'starting';
  /** @type {Account|null} */
  me = null;
  /** @type {Map<string, Space>} The spaces that the account is in. */
  spaces = new Map();
  /** @type {'empty'|'ready'|'failed'} */
  spacesState = 'empty';
  /** Why the spaces could not be read. */
  spacesProblem = '';
  /** @type {string|null} Id of the space on the screen. */
  open = null;
  /** @type {string|null} Token of an invitation that was opened and is to be accepted. */
  invitation = null;
  /** @type {string|null} Message to bring into view once its space is open. */
  target = null;
  /** @type {Map<string, Timeline>} By space. */
  timelines = new Map();
  /** @type {Map<string, Pending[]>} By space. */
  outbox = new Map();
  /** @type {Map<string, Account>} */
  people = new Map();
  /** @type {Map<string, Map<string, Role>>} By space, then account. */
  members = new Map();
  /** @type {Map<string, Map<string, number>>} By space and account: until when (ms). */
  typing = new Map();
  /** @type {Set<string>} Accounts that are online, as far as we share spaces with them. */
  online = new Set();
  /** @type {Map<string, string>} What has been typed and not sent, by space. */
  drafts = new Map();

  /** Forgets everything of the account. */
  clear() {
    this.me = null;
    this.open = null;
    this.target = null;
    this.spacesState = 'empty';
    for (const map of [this.spaces, this.timelines, this.outbox, this.people, this.members, this.typing, this.drafts]) {
      map.clear();
    }
    this.online.clear();
  }

  /**
   * Announces a change.
   * @param {Topic} topic
   * @param {string} [detail] The space that it is about, or the text of a toast or announcement.
   */
  changed(topic, detail = '') {
    this.#target.dispatchEvent(new CustomEvent(topic, { detail }));
  }

  /**
   * @param {Topic} topic
   * @param {(detail: string) => void} heard
   * @returns {() => void} Stops listening.
   */
  on(topic, heard) {
    /** @param {Event} event */
    const listener = (event) => heard(/** @type {CustomEvent<string>} */ (event).detail);
    this.#target.addEventListener(topic, listener);
    return () => this.#target.removeEventListener(topic, listener);
  }

  get openSpace() {
    return this.open ? this.spaces.get(this.open) : undefined;
  }

  get unread() {
    let sum = 0;
    for (const space of this.spaces.values()) sum += space.unread;
    return sum;
  }
}

export const store = new Store();

/** @param {string} text Shown for some seconds. */
export const toast = (text) => store.changed('toast', text);

/** @param {string} text Read out by screen readers. */
export const announce = (text) => store.changed('announce', text);
