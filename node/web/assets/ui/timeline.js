// The messages of a space on the screen: days, the "new messages" line, older pages when scrolling up, staying at the end
// while at the end, and moving between messages with the arrow keys. Only the last part of a long timeline is in the page.

import { pendingOf } from '../state/outbox.js';
import { watch } from '../state/reading.js';
import { store, toast } from '../state/store.js';
import { loadNewest, loadOlder, reach, timelineOf, visit } from '../state/timeline.js';
import { h, icon, reconcile } from './dom.js';
import { dayKey, dayName } from './format.js';
import { MyChatMessage } from './message.js';
import { countAfter, rowsOf } from './rows.js';
import { View } from './view.js';

/** @typedef {import('./rows.js').Row} Row */

const WINDOW = 150;
const STEP = 100;
const NEAR_PX = 80;
const EARLY_PX = 600;

export class MyChatTimeline extends View {
  #rows = h('div', { class: 'rows' });
  #top = h('div', { class: 'timeline-top' });
  #scroller = h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Messages' }, this.#top, this.#rows);
  #latest = h('button', { type: 'button', class: 'to-latest', hidden: true, onclick: () => this.#toEnd() });
  #window = WINDOW;
  #atEnd = true;
  #placed = false;
  #seenLast = '';

  /** @param {string} space */
  constructor(space) {
    super();
    this.space = space;
  }

  /** @override */
  build() {
    this.replaceChildren(this.#scroller, this.#latest);
    this.follow(['timeline'], this.space);
    this.follow(['people', 'session']);
    this.also(store.on('connection', () => pendingOf(this.space).length > 0 && this.refresh()));
    this.also(store.on('route', () => this.#seek()));
    this.#scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.#scroller.addEventListener('keydown', (event) => this.#key(event));
    // Pictures that arrive late must not push the end out of sight.
    this.#scroller.addEventListener('load', () => this.#atEnd && this.#stick(), { capture: true });
    const resized = new ResizeObserver(() => this.#atEnd && this.#stick());
    resized.observe(this.#scroller);
    this.also(() => resized.disconnect());
    const seen = () => this.#watch();
    document.addEventListener('visibilitychange', seen);
    this.also(() => document.removeEventListener('visibilitychange', seen));
    this.also(() => {
      watch(null);
      // The line has been seen; the next visit draws its own.
      const timeline = store.timelines.get(this.space);
      if (timeline) timeline.newFrom = null;
    });
    const timeline = visit(this.space);
    const unread = store.spaces.get(this.space)?.unread ?? 0;
    if (timeline.state !== 'ready' || unread > timeline.items.length) loadNewest(this.space);
    this.#seek();
  }

  /** @override */
  render() {
    const timeline = timelineOf(this.space);
    if (!this.#placed) this.#widen(timeline.newFrom);
    const rows = rowsOf(timeline, pendingOf(this.space), this.#window);
    const anchor = this.#atEnd ? null : this.#anchor();
    reconcile(this.#rows, rows, {
      key: (row) => row.key,
      make: (row) => this.#make(row),
      update: (element, row) => {
        if (row.kind === 'message' && element instanceof MyChatMessage) element.show(row);
        if (row.kind === 'day') element.textContent = dayName(row.day);
      },
    });
    this.#renderTop();
    if (!this.#placed && timeline.state === 'ready') this.#place();
    else if (anchor) this.#scroller.scrollTop = anchor.element.offsetTop - anchor.offset;
    else if (this.#atEnd) this.#stick();
    const last = timeline.items.at(-1)?.id ?? '';
    if (this.#atEnd) this.#seenLast = last;
    this.#renderLatest();
    this.#watch();
    if (timeline.state === 'ready' && this.#scroller.scrollHeight <= this.#scroller.clientHeight) this.#more();
  }

  /** @param {Row} row @returns {HTMLElement} */
  #make(row) {
    if (row.kind === 'message') return new MyChatMessage();
    if (row.kind === 'new') return h('div', { class: 'new-line', role: 'separator', test: 'new-line' }, h('span', null, 'New messages'));
    return h('div', { class: 'day-line', role: 'separator', 'data-day': dayKey(row.day) });
  }

  #renderTop() {
    const timeline = timelineOf(this.space);
    const { state } = timeline;
    this.#top.replaceChildren();
    if (state === 'failed') {
      const again = h('button', { type: 'button', class: 'button', onclick: () => loadNewest(this.space) }, 'Try again');
      this.#top.append(h('p', { role: 'alert' }, `The messages can’t be read. ${timeline.problem}`), again);
    } else if (state !== 'ready' || timeline.paging) {
      this.#top.append(h('p', { class: 'loading' }, 'Reading messages…'));
    } else if (!timeline.older && this.#window >= timeline.items.length) {
      const none = timeline.items.length === 0 && pendingOf(this.space).length === 0;
      this.#top.append(h('p', null, none ? 'No messages yet. Write the first one.' : 'This is where the conversation begins.'));
    }
  }

  /** The first time that messages show: at the end, or at the "new messages" line when it is further up. */
  #place() {
    this.#placed = true;
    this.#stick();
    const line = /** @type {HTMLElement|null} */ (this.#rows.querySelector('.new-line'));
    if (line && this.#scroller.scrollTop > line.offsetTop - 60) this.#scroller.scrollTop = line.offsetTop - 60;
    this.#measure();
    if (store.target) this.#seek();
  }

  /** Makes the part that is in the page reach back to a message. @param {string|null} id */
  #widen(id) {
    const { items } = timelineOf(this.space);
    const at = id ? items.findIndex((item) => item.id === id) : -1;
    if (at >= 0) this.#window = Math.max(this.#window, items.length - at + STEP / 2);
  }

  #stick() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {boolean} is */
  #setAtEnd(is) {
    this.#atEnd = is;
    // What somebody reads further back is not to be cut off.
    const timeline = store.timelines.get(this.space);
    if (timeline) timeline.back = !is;
  }

  #toEnd() {
    this.#setAtEnd(true);
    this.#window = WINDOW;
    this.render();
    this.dispatchEvent(new CustomEvent('to-composer', { bubbles: true }));
  }

  /** The first message in sight, and how far it is from the top of the view. */
  #anchor() {
    const top = this.#scroller.scrollTop;
    for (const element of this.#rows.children) {
      if (!(element instanceof MyChatMessage)) continue;
      if (element.offsetTop + element.offsetHeight > top) return { element, offset: element.offsetTop - top };
    }
    return null;
  }

  #measure() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#setAtEnd(scrollHeight - clientHeight - scrollTop < NEAR_PX);
  }

  #scrolled() {
    const before = this.#atEnd;
    this.#measure();
    if (this.#atEnd) this.#seenLast = timelineOf(this.space).items.at(-1)?.id ?? '';
    if (before !== this.#atEnd) {
      if (this.#atEnd && this.#window > WINDOW * 3) {
        this.#window = WINDOW;
        this.refresh();
      }
      this.#renderLatest();
      this.#watch();
    }
    if (this.#scroller.scrollTop < EARLY_PX && this.#placed) this.#more();
  }

  #more() {
    const timeline = timelineOf(this.space);
    if (timeline.paging) return;
    if (this.#window < timeline.items.length) {
      this.#window += STEP;
      this.refresh();
    } else if (timeline.older) {
      this.#window += STEP;
      loadOlder(this.space);
    }
  }

  #renderLatest() {
    this.#latest.hidden = this.#atEnd;
    if (this.#atEnd) return;
    const fresh = countAfter(timelineOf(this.space).items, this.#seenLast);
    const text = fresh > 0 ? `${fresh} new ${fresh === 1 ? 'message' : 'messages'}` : 'To the latest';
    if (this.#latest.textContent !== text) this.#latest.replaceChildren(text, icon('down'));
  }

  #watch() {
    watch(this.#atEnd && this.#placed && !document.hidden && store.open === this.space ? this.space : null);
  }

  /** Brings the message that the address names into view. */
  async #seek() {
    const id = store.target;
    if (!id || store.open !== this.space || timelineOf(this.space).state !== 'ready') return;
    store.target = null;
    timelineOf(this.space).back = true;
    if (!(await reach(this.space, id))) {
      this.#setAtEnd(this.#atEnd);
      toast('That message is further back than can be shown here.');
      return;
    }
    this.#widen(id);
    this.#setAtEnd(false);
    this.render();
    const element = /** @type {HTMLElement|null} */ (this.#rows.querySelector(`[data-message="${CSS.escape(id)}"]`));
    element?.scrollIntoView({ block: 'center' });
    element?.focus({ preventScroll: true });
    element?.classList.remove('flash');
    requestAnimationFrame(() => element?.classList.add('flash'));
  }

  /** Begins to edit the last message of one's own. Says whether there is one. */
  editLast() {
    const mine = [...this.#rows.querySelectorAll('mychat-message.own')].reverse();
    const last = mine.find((element) => element instanceof MyChatMessage && element.editable);
    if (!(last instanceof MyChatMessage)) return false;
    last.scrollIntoView({ block: 'nearest' });
    last.edit();
    return true;
  }

  focusLast() {
    const last = [...this.#rows.querySelectorAll('mychat-message')].at(-1);
    if (last instanceof HTMLElement) last.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target instanceof HTMLTextAreaElement) return;
    const all = /** @type {HTMLElement[]} */ ([...this.#rows.querySelectorAll('mychat-message')]);
    const at = all.findIndex((element) => element.contains(document.activeElement));
    /** @type {HTMLElement|undefined} */
    let next;
    if (event.key === 'ArrowUp') next = at < 0 ? all.at(-1) : (all[at - 1] ?? all[0]);
    else if (event.key === 'ArrowDown') next = at < 0 ? all.at(-1) : all[at + 1];
    else if (event.key === 'Home') next = all[0];
    else if (event.key === 'End') next = all.at(-1);
    else if (event.key !== 'Escape') return;
    event.preventDefault();
    if (next) next.focus();
    else if (event.key !== 'Home') this.dispatchEvent(new CustomEvent('to-composer', { bubbles: true }));
  }
}

customElements.define('mychat-timeline', MyChatTimeline);
