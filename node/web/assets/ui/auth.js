// The way in: signing up and signing in.

import { signIn, signUp } from '../state/session.js';
import { store } from '../state/store.js';
import { h } from './dom.js';
import { errorLine, field, submits } from './form.js';
import { MyChatStatus } from './status.js';
import { View } from './view.js';

const BEEN_HERE = 'mychat-been-here';

export class MyChatAuth extends View {
  #card = h('section', { class: 'auth-card' });

  /** @override */
  build() {
    this.replaceChildren(
      h(
        'main',
        { class: 'auth' },
        h(
          'div',
          { class: 'auth-brand' },
          h('img', { src: '/assets/favicon.svg', alt: '', width: 44, height: 44 }),
          h('h1', null, 'MyChat'),
          h('p', null, 'One conversation, near to everyone in it.'),
        ),
        this.#card,
        new MyChatStatus(),
      ),
    );
    this.#show(beenHere() ? 'signin' : 'signup');
  }

  /** @param {'signin'|'signup'} which */
  #show(which) {
    const make = which === 'signup' ? this.#signUp() : this.#signIn();
    this.#card.replaceChildren(...make);
    const first = this.#card.querySelector('input');
    // On a phone, focus would bring up the keyboard over the page before it has been seen.
    if (first && matchMedia('(pointer: fine)').matches) first.focus();
  }

  #invited() {
    const text = 'You have been invited to a space. It opens as soon as you are in.';
    return store.invitation ? [h('p', { class: 'notice' }, text)] : [];
  }

  #signUp() {
    const error = errorLine();
    const form = h(
      'form',
      { test: 'signup-form' },
      field({ label: 'Your name', name: 'name', required: true, autocomplete: 'name', maxlength: 200 }),
      field({ label: 'E-mail', name: 'email', type: 'email', required: true, autocomplete: 'email' }),
      field({ label: 'Password', name: 'password', type: 'password', required: true, autocomplete: 'new-password' }),
      error,
      h('button', { type: 'submit', class: 'button primary wide' }, 'Sign up'),
    );
    submits(form, error, async ({ name = '', email = '', password = '' }) => {
      await signUp({ name: name.trim(), email: email.trim(), password });
      remember();
    });
    const other = this.#switch('Already have an account?', 'Sign in', 'switch-to-signin', 'signin');
    return [h('h2', null, 'Create an account'), ...this.#invited(), form, other];
  }

  #signIn() {
    const error = errorLine();
    const form = h(
      'form',
      { test: 'signin-form' },
      field({ label: 'E-mail', name: 'email', type: 'email', required: true, autocomplete: 'username' }),
      field({ label: 'Password', name: 'password', type: 'password', required: true, autocomplete: 'current-password' }),
      error,
      h('button', { type: 'submit', class: 'button primary wide' }, 'Sign in'),
    );
    submits(form, error, async ({ email = '', password = '' }) => {
      await signIn({ email: email.trim(), password });
      remember();
    });
    const other = this.#switch('New here?', 'Create an account', 'switch-to-signup', 'signup');
    return [h('h2', null, 'Sign in'), ...this.#invited(), form, other];
  }

  /**
   * @param {string} question
   * @param {string} answer
   * @param {string} test
   * @param {'signin'|'signup'} which
   */
  #switch(question, answer, test, which) {
    const button = h('button', { type: 'button', class: 'link', test, onclick: () => this.#show(which) }, answer);
    return h('p', { class: 'auth-switch' }, `${question} `, button);
  }
}

function beenHere() {
  try {
    return localStorage.getItem(BEEN_HERE) !== null;
  } catch {
    return false;
  }
}

function remember() {
  try {
    localStorage.setItem(BEEN_HERE, '1');
  } catch {
    // Then the next visit begins with the sign-up form.
  }
}

customElements.define('mychat-auth', MyChatAuth);
