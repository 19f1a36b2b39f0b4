// The dialog to bring others into a space: by their handle, which adds them at once, or by a link to pass on.

import { spaces as api } from '../api.js';
import { explain } from '../net/problem.js';
import { learnPerson } from '../state/people.js';
import { loadMembers } from '../state/spaces.js';
import { store } from '../state/store.js';
import { openDialog } from './dialog.js';
import { h, icon } from './dom.js';
import { errorLine, field, showError, submits } from './form.js';
import { fullTimeOf } from './format.js';

/** Links made by this page, so that opening the dialog again does not make another. @type {Map<string, {url: string, expires: string}>} */
const links = new Map();
/** A link that is about to expire is not handed out again. */
const LEAST_LEFT_MS = 60 * 60_000;

/** @param {string} space */
export function openInvite(space) {
  openDialog({
    title: `Invite to ${store.spaces.get(space)?.name ?? 'the space'}`,
    content: () => [byHandle(space), byLink(space)],
  });
}

/** @param {string} space */
function byHandle(space) {
  const error = errorLine();
  const done = h('p', { class: 'form-done', role: 'status', hidden: true });
  const form = h(
    'form',
    { class: 'invite-handle', test: 'invite-form' },
    h(
      'div',
      { class: 'field-row' },
      field({ label: 'By handle', name: 'handle', required: true, placeholder: '@handle', autocomplete: 'off', spellcheck: false }),
      h('button', { type: 'submit', class: 'button primary' }, 'Invite'),
    ),
    error,
    done,
  );
  submits(form, error, async ({ handle = '' }) => {
    done.hidden = true;
    const clean = handle.trim().replace(/^@/, '');
    const answer = await api.inviteHandle(space, clean);
    if (answer?.account?.id) learnPerson(answer.account);
    done.textContent = `@${clean} is in.`;
    done.hidden = false;
    form.reset();
    await loadMembers(space);
  });
  return form;
}

/** @param {string} space */
function byLink(space) {
  const input = h('input', { class: 'input', type: 'text', readonly: true, test: 'invite-link', 'aria-label': 'Invitation link' });
  const copy = h('button', { type: 'button', class: 'button', disabled: true }, icon('copy'), h('span', null, 'Copy'));
  const hint = h('p', { class: 'hint' }, 'Making a link…');
  const error = errorLine();
  const show = (/** @type {{url: string, expires: string}} */ link) => {
    input.value = link.url;
    copy.disabled = false;
    hint.textContent = link.expires
      ? `Anyone with this link can join. It is good until ${fullTimeOf(link.expires)}.`
      : 'Anyone with this link can join.';
  };
  input.addEventListener('focus', () => input.select());
  copy.addEventListener('click', async () => {
    await copyText(input);
    const label = copy.querySelector('span');
    if (label) label.textContent = 'Copied';
  });
  linkFor(space).then(show, (problem) => {
    hint.textContent = '';
    showError(error, explain(problem));
  });
  return h(
    'section',
    { class: 'invite-by-link' },
    h('h3', null, 'By link'),
    h('div', { class: 'field-row' }, input, copy),
    hint,
    error,
  );
}

/** @param {string} space */
async function linkFor(space) {
  const known = links.get(space);
  if (known && (!known.expires || Date.parse(known.expires) - Date.now() > LEAST_LEFT_MS)) return known;
  const made = await api.inviteLink(space);
  const link = { url: made.url ?? `${location.origin}/#/invite/${made.token}`, expires: made.expires_at ?? '' };
  links.set(space, link);
  return link;
}

/** @param {HTMLInputElement} input */
async function copyText(input) {
  try {
    await navigator.clipboard.writeText(input.value);
  } catch {
    // Pages without https have no clipboard of their own; the old way works everywhere.
    input.select();
    document.execCommand('copy');
  }
}
