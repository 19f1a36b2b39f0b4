// The panel beside a space: who is in it and as what, and what can be done with the space itself.

import { spaces as api } from '../api.js';
import { explain } from '../net/problem.js';
import { nameOf, person } from '../state/people.js';
import { isOnline } from '../state/presence.js';
import { goHome, goSpace } from '../state/route.js';
import { canManage, dropSpace, leaveSpace, loadMembers, putSpace } from '../state/spaces.js';
import { store, toast } from '../state/store.js';
import { avatar, updateAvatar } from './avatar.js';
import { confirmDialog } from './dialog.js';
import { h, iconButton, reconcile } from './dom.js';
import { openSpaceSettings } from './space-settings.js';
import { View } from './view.js';

/** @typedef {import('../types.js').Role} Role */
/** @typedef {{account: string, role: Role}} Member */

/** @type {Role[]} */
const ROLES = ['owner', 'admin', 'member', 'guest'];
const REMOVE = 'remove';

export class MyChatMembers extends View {
  #count = h('h3', null, 'Members');
  #list = h('ul', { class: 'member-list', test: 'member-list' });
  #error = h('p', { class: 'form-error', role: 'alert', hidden: true });
  #actions = h('div', { class: 'panel-actions' });

  /**
   * @param {string} space
   * @param {() => void} close
   */
  constructor(space, close) {
    super();
    this.space = space;
    this.close = close;
  }

  /** @override */
  build() {
    const closer = iconButton('close', 'Close members', this.close);
    this.replaceChildren(
      h(
        'aside',
        { class: 'panel', 'aria-label': 'Members' },
        h('header', { class: 'panel-head' }, this.#count, closer),
        this.#error,
        this.#list,
        this.#actions,
      ),
    );
    this.follow(['members', 'spaces'], this.space);
    this.follow(['people', 'presence']);
    loadMembers(this.space).catch((error) => {
      this.#error.textContent = explain(error);
      this.#error.hidden = false;
    });
    closer.focus();
  }

  /** @override */
  render() {
    const space = store.spaces.get(this.space);
    /** @type {Member[]} */
    const members = [...(store.members.get(this.space) ?? [])].map(([account, role]) => ({ account, role }));
    const rank = (/** @type {Member} */ member) => ROLES.indexOf(member.role);
    members.sort((a, b) => rank(a) - rank(b) || nameOf(a.account).localeCompare(nameOf(b.account)));
    this.#count.textContent = members.length > 0 ? `Members · ${members.length}` : 'Members';
    const manage = canManage(space);
    reconcile(this.#list, members, {
      // The element depends on what may be done with the member.
      key: (member) => `${member.account} ${manage} ${store.members.get(this.space)?.get(member.account)}`,
      make: (member) => this.#item(member, manage),
      update: (element, member) => this.#update(element, member),
    });
    this.#renderActions(manage);
  }

  /** @param {Member} member @param {boolean} manage */
  #item({ account, role }, manage) {
    const mine = account === store.me?.id;
    const change = manage && !mine && (role !== 'owner' || store.spaces.get(this.space)?.role === 'owner');
    const tools = [
      mine || store.spaces.get(this.space)?.visibility === 'direct'
        ? null
        : iconButton('chat', 'Write to them directly', () => this.#direct(account)),
      change ? this.#roleChoice(account, role) : h('span', { class: `role ${role}` }, role),
    ];
    return h(
      'li',
      { class: 'member-row', test: 'member', 'data-account': account },
      avatar(account, 'small'),
      h('div', { class: 'member-text' }, h('span', { class: 'member-name' }), h('span', { class: 'member-handle' })),
      tools,
    );
  }

  /** @param {HTMLElement} element @param {Member} member */
  #update(element, { account }) {
    const known = person(account);
    const mark = element.querySelector('.avatar');
    if (mark) updateAvatar(mark, account);
    const online = isOnline(account);
    element.classList.toggle('online', online);
    element.title = online ? 'Online' : '';
    const you = account === store.me?.id ? ' (you)' : '';
    /** @type {HTMLElement} */ (element.querySelector('.member-name')).textContent = `${known?.name ?? '…'}${you}`;
    /** @type {HTMLElement} */ (element.querySelector('.member-handle')).textContent = known?.handle ? `@${known.handle}` : '';
  }

  /** @param {string} account @param {Role} role */
  #roleChoice(account, role) {
    const select = h(
      'select',
      { class: 'role-choice', 'aria-label': `Role of ${nameOf(account)}` },
      ROLES.map((name) => h('option', { value: name }, name)),
      h('option', { value: REMOVE }, 'Remove…'),
    );
    select.value = role;
    select.addEventListener('change', async () => {
      if (select.value === REMOVE) {
        select.value = role;
        this.#remove(account);
        return;
      }
      try {
        await api.setMember(this.space, account, /** @type {Role} */ (select.value));
        await loadMembers(this.space);
      } catch (error) {
        select.value = role;
        toast(explain(error));
      }
    });
    return select;
  }

  /** @param {boolean} manage */
  #renderActions(manage) {
    const space = store.spaces.get(this.space);
    if (!space || this.#actions.dataset.role === `${space.role}`) return;
    this.#actions.dataset.role = `${space.role}`;
    const edit = h('button', { type: 'button', class: 'button', onclick: () => openSpaceSettings(this.space) }, 'Edit space');
    const leave = h('button', { type: 'button', class: 'button', test: 'leave-space', onclick: () => this.#leave() }, 'Leave space');
    const erase = h('button', { type: 'button', class: 'button danger', onclick: () => this.#erase() }, 'Delete space');
    this.#actions.replaceChildren(...(manage ? [edit] : []), leave, ...(space.role === 'owner' && manage ? [erase] : []));
  }

  /** @param {string} account */
  async #direct(account) {
    try {
      const space = await api.direct(account);
      putSpace({ ...space, role: space.role ?? 'member' });
      goSpace(space.id);
    } catch (error) {
      toast(explain(error));
    }
  }

  /** @param {string} account */
  #remove(account) {
    confirmDialog({
      title: `Remove ${nameOf(account)}?`,
      text: 'They will no longer see this space. Their messages stay.',
      action: 'Remove',
      run: async () => {
        await api.removeMember(this.space, account);
        await loadMembers(this.space);
      },
    });
  }

  #leave() {
    const space = store.spaces.get(this.space);
    const back = space?.visibility === 'public' ? 'You can join again at any time.' : 'To come back you need an invitation.';
    confirmDialog({ title: `Leave ${space?.name ?? 'this space'}?`, text: back, action: 'Leave', run: () => leaveSpace(this.space) });
  }

  #erase() {
    const space = store.spaces.get(this.space);
    confirmDialog({
      title: `Delete ${space?.name ?? 'this space'}?`,
      text: 'The space and all its messages will be gone for everyone.',
      action: 'Delete',
      run: async () => {
        await api.remove(this.space);
        dropSpace(this.space, false);
        goHome();
      },
    });
  }
}

customElements.define('mychat-members', MyChatMembers);
