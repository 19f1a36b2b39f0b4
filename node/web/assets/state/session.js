// Who is signed in, and what begins and ends with that: the event stream, the reading of spaces, waiting invitations.

import { accounts, spaces as spaceApi } from '../api.js';
import { backoff, sleep } from '../net/backoff.js';
import { net } from '../net/net.js';
import { explain, Problem } from '../net/problem.js';
import { SharedStream } from '../net/shared.js';
import { startSurvey } from '../net/survey.js';
import { applyEvent } from './events.js';
import { learnPerson } from './people.js';
import { readPresence } from './presence.js';
import { forgetReading } from './reading.js';
import { forgetInvitation, goHome, goSpace } from './route.js';
import { loadSpaces, putSpace, welcome } from './spaces.js';
import { store, toast } from './store.js';
import { reread } from './timeline.js';

/** @typedef {import('../types.js').Account} Account */
/** @typedef {import('../types.js').ServerEvent} ServerEvent */

/** @type {SharedStream|null} */
let stream = null;
let begun = false;

/** Finds out whether the browser holds a session, and goes on with it. */
export async function start() {
  startSurvey();
  net.addEventListener('status', () => store.changed('connection'));
  net.addEventListener('unauthorized', () => leave('Your session has ended. Sign in again.'));
  document.addEventListener('visibilitychange', () => document.hidden || checkAccount());
  store.on('route', () => acceptInvitation());
  for (let attempt = 0; ; attempt++) {
    try {
      await enter(await accounts.me());
      return;
    } catch (error) {
      if (error instanceof Problem && error.status < 500) return show('auth');
      show('unreachable');
      await sleep(backoff(attempt));
    }
  }
}

/** @param {{email: string, password: string}} form */
export async function signIn(form) {
  await enter(await accounts.signIn(form));
}

/** @param {{email: string, password: string, name: string}} form */
export async function signUp(form) {
  await enter(await accounts.create(form));
}

/** Ends the session on the server and in all tabs. */
export async function signOut() {
  try {
    await accounts.signOut();
  } catch (error) {
    if (!(error instanceof Problem && error.status === 401)) {
      toast(`You are still signed in. ${explain(error)}`);
      return;
    }
  }
  stream?.stop({ signedOut: true });
  leave('');
}

/** @param {Account} account */
async function enter(account) {
  store.me = account;
  learnPerson(account);
  net.nodes.forgive();
  begun = false;
  stream = new SharedStream(net, account.id, { onEvent: hear, onSignedOut: () => leave('') });
  stream.start();
  show('chat');
  await Promise.all([loadSpaces(), acceptInvitation()]);
}

/** @param {string} why Told on the sign-in screen; empty when the person wanted it. */
function leave(why) {
  if (store.screen !== 'chat') return;
  stream?.stop();
  stream = null;
  store.clear();
  forgetReading();
  net.forget();
  goHome();
  show('auth');
  if (why) toast(why);
}

/** @param {ServerEvent} event */
function hear(event) {
  // Presence is not resumed: each stream begins with reading it.
  if (event.type === 'ready') readPresence();
  if (event.type === 'reset' && !event.cursor) {
    // No node can read our cursor. The stream starts anew, and with its `ready` what is missing is read.
    begun = false;
    return;
  }
  if (event.type === 'reset' || (event.type === 'ready' && !begun)) {
    // From here on nothing is missed; what came before is read (again).
    const again = begun || store.timelines.size > 0;
    begun = true;
    loadSpaces();
    if (again) reread();
    return;
  }
  applyEvent(event);
}

/** @param {'starting' | 'unreachable' | 'auth' | 'chat'} screen */
function show(screen) {
  store.screen = screen;
  store.changed('session');
}

/** Another window of this browser may have signed in as someone else: the cookie is shared, so this one must follow. */
async function checkAccount() {
  const mine = store.me?.id;
  if (!mine) return;
  try {
    const { id } = await accounts.me();
    if (id !== mine && store.me?.id === mine) location.reload();
  } catch (error) {
    if (error instanceof Problem && error.status === 401 && store.me?.id === mine) await net.refused(net.base);
  }
}

async function acceptInvitation() {
  const token = store.invitation;
  if (!token || !store.me) return;
  forgetInvitation();
  try {
    const space = await spaceApi.accept(token);
    if (store.spaces.has(space.id)) putSpace(space);
    else welcome(space);
    goSpace(space.id);
    toast(`Welcome to ${space.name || 'the space'}.`);
  } catch (error) {
    goHome();
    const gone = error instanceof Problem && [404, 410].includes(error.status);
    toast(gone ? 'This invitation is no longer good. Ask for a new one.' : explain(error));
  }
}
