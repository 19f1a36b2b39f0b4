// Times and days as people read them, in their own language and time zone.

const TIME = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'short' });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const DAY_YEAR = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });

/** @param {string} instant */
export const timeOf = (instant) => TIME.format(new Date(instant));

/** The time without its am or pm, for where there is little room. @param {string} instant */
export const shortTimeOf = (instant) =>
  TIME.formatToParts(new Date(instant))
    .filter(({ type }) => type !== 'dayPeriod')
    .map(({ value }) => value)
    .join('')
    .trim();

/** @param {string} instant */
export const fullTimeOf = (instant) => FULL.format(new Date(instant));

/** The local day as a key that changes when the day does. @param {string} instant */
export function dayKey(instant) {
  const date = new Date(instant);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

/** @param {string} instant */
export function dayName(instant) {
  const date = new Date(instant);
  const now = new Date();
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (date.toDateString() === now.toDateString()) return 'Today';
  if (date.toDateString() === yesterday.toDateString()) return 'Yesterday';
  return (date.getFullYear() === now.getFullYear() ? DAY : DAY_YEAR).format(date);
}

/** @param {number} count */
export const countText = (count) => (count > 99 ? '99+' : String(count));

/** A list of names, or of the first few and how many more. @param {string[]} names */
export function someNames(names, most = 3) {
  if (names.length <= most) return new Intl.ListFormat(undefined, { type: 'conjunction' }).format(names);
  return `${names.slice(0, most).join(', ')} and ${names.length - most} more`;
}

/**
 * The text of a message without its markup.
 * @param {{html: string, body: string}} message
 */
export function plainOf({ html, body }) {
  if (!html) return body;
  // The content of a template is inert: nothing in it loads or runs.
  const template = document.createElement('template');
  template.innerHTML = html;
  return template.content.textContent ?? '';
}

/** @param {string} text @param {number} length */
export function shorten(text, length) {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}
