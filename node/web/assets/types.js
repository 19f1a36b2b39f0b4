// The shapes that the server's API and the parts of this client exchange. Types only; nothing runs here.

/**
 * @typedef {object} Account
 * @property {string} id
 * @property {string} name
 * @property {string|null} [handle]
 * @property {string|null} [email] Only on one's own account.
 * @property {string|null} [avatar]
 * @property {boolean} [active]
 */

/** @typedef {'owner'|'admin'|'member'|'guest'} Role */

/**
 * @typedef {object} Space
 * @property {string} id
 * @property {string} name
 * @property {string|null} topic
 * @property {'public'|'private'|'direct'} visibility
 * @property {string} [created_at]
 * @property {Role|null} role The caller's role; null when the caller is not a member.
 * @property {number} unread
 * @property {string|null} last Id of the newest message known.
 */

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string} space
 * @property {string} author Account id.
 * @property {string} body Markdown as typed; empty when deleted.
 * @property {string} html Rendered and sanitised by the server.
 * @property {string} sent_at
 * @property {string|null} edited_at
 * @property {boolean} deleted
 * @property {string|null} reply_to
 * @property {Record<string, string[]>} reactions Emoji to account ids.
 * @property {string|null} client_id
 */

/**
 * A message that this client has written and the server has not yet confirmed.
 * @typedef {object} Pending
 * @property {string} client_id The same on every try, so that it becomes one message whichever nodes are asked.
 * @property {string} space
 * @property {string} body
 * @property {string|null} reply_to
 * @property {string} written_at
 * @property {'pending'|'failed'} state
 * @property {string} reason Why it failed, in plain words.
 */

/**
 * @typedef {object} Timeline
 * @property {Message[]} items In the order of their ids, which is the order of sending.
 * @property {string|null} older Cursor of the next older page; null when the beginning is reached.
 * @property {'empty'|'loading'|'ready'|'failed'} state
 * @property {boolean} paging An older page is being fetched.
 * @property {boolean} reading The newest page is being fetched.
 * @property {boolean} again It is to be fetched once more after that.
 * @property {boolean} back It is on the screen, and not its end.
 * @property {string} problem Why it failed, in plain words.
 * @property {string|null} newFrom Id of the first message under the "new messages" line.
 */

/**
 * @typedef {object} Member
 * @property {string} account
 * @property {Role} role
 * @property {string|null} name
 * @property {string|null} handle
 * @property {boolean|null} online Null when the node can't tell.
 */

/** @typedef {'live'|'reconnecting'|'offline'} LinkState */

/**
 * @typedef {object} Connection
 * @property {LinkState} state
 * @property {string} region
 * @property {number|null} latency Round trip to the node, in milliseconds.
 * @property {string} base URL of the node in use.
 */

/**
 * @typedef {object} ServerEvent
 * @property {string} type
 * @property {any} data
 * @property {string|null} cursor The event's id, if it has one.
 */

export {};
