// Making elements, and keeping a list of them in step with data.

/** @typedef {Node|string|number|null|undefined|false} Child */

/**
 * Makes an element. `test` becomes the `data-test` attribute that browser tests hold on to; `on…` functions become listeners.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>|null} [props]
 * @param {...(Child|Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  if (props) assign(element, props);
  element.append(...nodes(children.flat()));
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, any>} props
 */
export function assign(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else if (value === undefined || value === null || value === false) element.removeAttribute(attribute(name));
    else element.setAttribute(attribute(name), value === true ? '' : String(value));
  }
}

/** @param {string} name */
const attribute = (name) => (name === 'test' ? 'data-test' : name);

/** @param {Child[]} children @returns {(Node|string)[]} */
function nodes(children) {
  /** @type {(Node|string)[]} */
  const out = [];
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    out.push(child instanceof Node ? child : String(child));
  }
  return out;
}

/** @type {WeakMap<Element, Map<string, Element>>} */
const lists = new WeakMap();

/**
 * Makes the children of `parent` match `items`, keeping the elements of those that stay (and with them focus and scroll).
 * @template T
 * @template {Element} E
 * @param {Element} parent
 * @param {T[]} items
 * @param {{key: (item: T) => string, make: (item: T) => E, update?: (element: E, item: T) => void}} how
 */
export function reconcile(parent, items, { key, make, update }) {
  const before = lists.get(parent) ?? new Map();
  /** @type {Map<string, Element>} */
  const after = new Map();
  for (const item of items) {
    const name = key(item);
    const element = before.get(name) ?? make(item);
    after.set(name, element);
    update?.(/** @type {E} */ (element), item);
  }
  for (const [name, element] of before) if (!after.has(name)) element.remove();
  let next = parent.firstElementChild;
  for (const element of after.values()) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  lists.set(parent, after);
}

/** Strokes of the icons, on a 24 by 24 grid. */
const ICONS = {
  plus: 'M12 5v14M5 12h14',
  browse: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM15.5 8.5l-2 5-5 2 2-5z',
  settings:
    'M4 7h9M17 7h3M4 17h3M11 17h9M15 4.8a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4zM9 14.8a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4z',
  signout: 'M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M15 8l4 4-4 4M19 12H9',
  people:
    'M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.3 2.9-5.5 6.5-5.5s6.5 2.2 6.5 5.5M16 4.4a3.5 3.5 0 0 1 0 6.4M18 14.9c2.1.8 3.5 2.6 3.5 5.1',
  invite: 'M10 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3 20c0-3.3 3.1-5.5 7-5.5 1.6 0 3 .4 4.2 1M18 13v7M14.5 16.5h7',
  send: 'M4.5 12L3.5 4.5 21 12 3.5 19.5zM4.5 12H12',
  back: 'M15 5l-7 7 7 7',
  close: 'M6 6l12 12M18 6L6 18',
  reply: 'M9 6l-5 5 5 5M4 11h9a7 7 0 0 1 7 7',
  edit: 'M5 19l1-4L16.5 4.5l3 3L9 18z',
  trash: 'M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 11v5M13.5 11v5',
  smile: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM8.5 14c.8 1.5 2 2.2 3.5 2.2s2.7-.7 3.5-2.2M9 9.5v.5M15 9.5v.5',
  down: 'M12 5v14M6 13l6 6 6-6',
  lock: 'M6.5 11h11v8.5h-11zM8.5 11V8a3.5 3.5 0 0 1 7 0v3',
  hash: 'M9.5 4l-2 16M16.5 4l-2 16M4.5 9h16M3.5 15h16',
  person: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c0-3.5 3.3-6 7.5-6s7.5 2.5 7.5 6',
  chat: 'M5 5h14v10.5h-8L6.5 19.5v-4H5z',
  copy: 'M8.5 8.5h11v11h-11zM15.5 8.5v-4h-11v11h4',
};

/** @typedef {keyof typeof ICONS} IconName */

const SVG = 'http://www.w3.org/2000/svg';

/** @param {IconName} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  assign(svg, { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true', focusable: 'false' });
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button that shows an icon only; its label is for screen readers and the tooltip.
 * @param {IconName} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function iconButton(name, label, onclick, props = {}) {
  return h(
    'button',
    { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props },
    icon(name),
  );
}
