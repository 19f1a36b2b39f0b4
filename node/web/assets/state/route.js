// The address of the page: `#/` the list, `#/space/ID` a space, `#/space/ID/MESSAGE` a message in it, `#/invite/TOKEN`
// an invitation. Being in the address, the browser's back button works, also as the phone's.

import { store } from './store.js';

/** Begins to follow the address. */
export function startRoute() {
  globalThis.addEventListener('hashchange', follow);
  follow();
}

/** Reads the address into the store. */
export function follow() {
  const [, kind, id, message] = location.hash.split('/').map(decode);
  if (kind === 'invite' && id) {
    store.invitation = id;
  } else {
    store.open = kind === 'space' && id ? id : null;
    store.target = store.open && message ? message : null;
  }
  store.changed('route');
}

/** @param {string} part */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return '';
  }
}

/** @param {string} id @param {string} [message] */
export const spaceAddress = (id, message) => `#/space/${id}${message ? `/${message}` : ''}`;

/** @param {string} id @param {string} [message] */
export function goSpace(id, message) {
  const address = spaceAddress(id, message);
  if (location.hash === address) follow();
  else location.hash = address;
}

export function goHome() {
  if (location.hash === '' || location.hash === '#/') follow();
  else location.hash = '#/';
}

/** Takes an invitation that has been dealt with out of the address and the history. */
export function forgetInvitation() {
  store.invitation = null;
  history.replaceState(null, '', '#/');
}
