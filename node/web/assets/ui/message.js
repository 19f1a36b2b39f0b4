// One message: its author and time, its text as the server rendered it, reactions, what can be done with it, and while it is
// on its way out, how that is going.

import { messages as api } from '../api.js';
import { net } from '../net/net.js';
import { discard, retry } from '../state/outbox.js';
import { goSpace } from '../state/route.js';
import { store } from '../state/store.js';
import { buryMessage, putMessage } from '../state/timeline.js';
import { avatar } from './avatar.js';
import { confirmDialog } from './dialog.js';
import { h, iconButton } from './dom.js';
import { editor } from './editor.js';
import { fullTimeOf, plainOf, shorten, shortTimeOf, timeOf } from './format.js';
import { picker, reactionChips } from './reactions.js';

/** @typedef {import('./rows.js').MessageRow} MessageRow */

export class MyChatMessage extends HTMLElement {
  /** @type {MessageRow|null} */
  #row = null;
  #editing = false;
  #actions = h('div', { class: 'actions', role: 'toolbar', 'aria-label': 'Message actions' });

  connectedCallback() {
    if (this.dataset.test) return;
    this.dataset.test = 'message';
    this.setAttribute('role', 'article');
    this.tabIndex = -1;
    // The buttons are made when first wanted; most messages never need them.
    const wake = () => this.#wakeActions();
    this.addEventListener('pointerenter', wake);
    this.addEventListener('focusin', wake);
    this.addEventListener('click', wake);
    this.addEventListener('keydown', (event) => this.#key(event));
  }

  /** Ours, sent, and not deleted. */
  get editable() {
    const row = this.#row;
    return row !== null && !row.pending && !row.message.deleted && row.message.author === store.me?.id;
  }

  /** @param {MessageRow} row */
  show(row) {
    if (this.#row && same(this.#row, row)) return;
    this.#row = row;
    if (this.#editing) return;
    this.#draw(row);
  }

  /** @param {MessageRow} row */
  #draw(row) {
    const { message, pending, compact, name } = row;
    const own = message.author === store.me?.id;
    this.dataset.message = message.id;
    this.dataset.state = pending?.state ?? 'sent';
    this.setAttribute('aria-label', `${name}, ${timeOf(message.sent_at)}`);
    this.className = ['message', compact && 'compact', own && 'own', message.deleted && 'deleted', pending?.state]
      .filter(Boolean)
      .join(' ');
    const told = compact ? shortTimeOf(message.sent_at) : timeOf(message.sent_at);
    const time = h('time', { datetime: message.sent_at, title: fullTimeOf(message.sent_at) }, told);
    const gutter = h('div', { class: 'gutter' }, compact ? time : avatar(message.author));
    const meta = h('div', { class: 'meta' }, h('span', { class: 'author' }, name), compact ? null : time);
    if (compact) meta.classList.add('visually-hidden');
    const content = h('div', { class: 'content' }, meta, this.#quote(row), this.#body(row));
    if (pending) content.append(this.#delivery(row));
    else if (!message.deleted) content.append(...reactionChips(message));
    this.replaceChildren(gutter, content);
    if (this.#actions.childElementCount > 0) {
      this.#actions.replaceChildren();
      this.#wakeActions();
    }
  }

  /** @param {MessageRow} row */
  #quote({ message, quote }) {
    const target = message.reply_to;
    if (!target || message.deleted) return null;
    return h(
      'button',
      { type: 'button', class: 'quote', title: 'Go to that message', onclick: () => goSpace(message.space, target) },
      quote,
    );
  }

  /** @param {MessageRow} row */
  #body({ message }) {
    if (message.deleted) return h('div', { class: 'body' }, 'This message was deleted.');
    const body = h('div', { class: 'body' });
    if (message.html) {
      // Rendered and sanitised by the server; the page's policy lets no script run in any case.
      body.innerHTML = message.html;
      for (const link of body.querySelectorAll('a')) Object.assign(link, { target: '_blank', rel: 'noopener noreferrer nofollow' });
    } else {
      body.classList.add('plain');
      body.textContent = message.body;
    }
    if (message.edited_at) {
      const mark = h('span', { class: 'edited', title: `Edited ${fullTimeOf(message.edited_at)}` }, ' (edited)');
      const last = body.lastElementChild;
      (last instanceof HTMLParagraphElement ? last : body).append(mark);
    }
    return body;
  }

  /** @param {MessageRow} row */
  #delivery({ pending }) {
    if (!pending || pending.state === 'pending') {
      const live = net.connection.state === 'live';
      return h('p', { class: 'delivery waiting' }, live ? 'Sending…' : 'Waiting for the connection…');
    }
    return h(
      'p',
      { class: 'delivery failed', role: 'alert' },
      `Not sent. ${pending.reason} `,
      h('button', { type: 'button', class: 'link', test: 'retry', onclick: () => retry(pending) }, 'Try again'),
      ' ',
      h('button', { type: 'button', class: 'link', test: 'discard', onclick: () => discard(pending) }, 'Discard'),
    );
  }

  #wakeActions() {
    const row = this.#row;
    if (!row || row.pending || row.message.deleted || this.#editing) return;
    if (this.#actions.childElementCount === 0) {
      const buttons = [
        iconButton('smile', 'Add a reaction', () => this.#pick(), { test: 'react' }),
        iconButton('reply', 'Reply', () => this.#reply(), { test: 'reply' }),
      ];
      if (this.editable) {
        buttons.push(
          iconButton('edit', 'Edit', () => this.edit(), { test: 'edit' }),
          iconButton('trash', 'Delete', () => this.#remove(), { test: 'delete' }),
        );
      }
      this.#actions.append(...buttons);
    }
    if (this.#actions.parentElement !== this) this.append(this.#actions);
  }

  #pick() {
    const row = this.#row;
    if (!row) return;
    const close = () => {
      this.#actions.replaceChildren();
      this.#wakeActions();
      this.focus();
    };
    this.#actions.replaceChildren(...picker(row.message, close));
    const first = this.#actions.firstElementChild;
    if (first instanceof HTMLElement) first.focus();
  }

  #reply() {
    this.dispatchEvent(new CustomEvent('reply', { bubbles: true, detail: this.#row?.message.id }));
  }

  edit() {
    const row = this.#row;
    if (!row || !this.editable || this.#editing) return;
    this.#editing = true;
    const { space, id, body } = row.message;
    const done = () => {
      this.#editing = false;
      if (this.#row) this.#draw(this.#row);
      this.dispatchEvent(new CustomEvent('to-composer', { bubbles: true }));
    };
    const save = async (/** @type {string} */ text) => {
      if (text !== body) putMessage(await api.edit(space, id, text));
    };
    const old = this.querySelector('.body');
    this.#actions.remove();
    const box = editor(body, save, done);
    old?.replaceWith(box);
    box.querySelector('textarea')?.focus();
  }

  #remove() {
    const row = this.#row;
    if (!row) return;
    const { space, id } = row.message;
    confirmDialog({
      title: 'Delete this message?',
      text: `“${shorten(plainOf(row.message), 120)}” will be gone for everyone.`,
      action: 'Delete',
      run: async () => {
        await api.remove(space, id);
        buryMessage(space, id);
      },
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const row = this.#row;
    if (event.target !== this || !row || row.pending || row.message.deleted) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => void>} */
    const does = { r: () => this.#reply(), '+': () => this.#pick() };
    if (this.editable) Object.assign(does, { e: () => this.edit(), Delete: () => this.#remove() });
    const act = does[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/** @param {MessageRow} a @param {MessageRow} b */
function same(a, b) {
  return (
    a.message === b.message &&
    a.state === b.state &&
    a.compact === b.compact &&
    a.name === b.name &&
    a.quote === b.quote
  );
}

customElements.define('mychat-message', MyChatMessage);
