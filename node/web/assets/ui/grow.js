// Makes a text area as tall as its text (up to the limit that the style sheet sets).

/** @param {HTMLTextAreaElement} text */
export function grow(text) {
  text.style.height = 'auto';
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
}
