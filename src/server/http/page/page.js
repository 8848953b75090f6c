'use strict';
// Asks for this page again every few seconds, and changes what differs in place: positions, open details and the
// focus stay. Elements keep their places in the page, so they are compared in their order.
(() => {
  const PAUSE = 4000, PATIENCE = 10000;
  const link = document.getElementById('link'), button = document.getElementById('pause');
  let isPaused = false, isAsking = false, timer = 0;

  const isKept = (element, name) => name === 'open' && element.localName === 'details';

  function change(old, wanted) {
    for (const { name } of [...old.attributes]) {
      if (!wanted.hasAttribute(name) && !isKept(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of wanted.attributes) {
      if (old.getAttribute(name) !== value && !isKept(old, name)) old.setAttribute(name, value);
    }
    const nodes = [...old.childNodes];
    [...wanted.childNodes].forEach((node, index) => {
      const now = nodes[index];
      if (!now) old.append(document.importNode(node, true));
      else if (now.nodeName !== node.nodeName || (now.id || '') !== (node.id || '')) now.replaceWith(document.importNode(node, true));
      else if (node.nodeType === Node.ELEMENT_NODE) change(now, node);
      else if (now.data !== node.data) now.data = node.data;
    });
    nodes.slice(wanted.childNodes.length).forEach((node) => node.remove());
  }

  function say(text) {
    if (link.textContent !== text) link.textContent = text;
    document.body.classList.toggle('stale', text !== '');
  }

  async function ask() {
    if (isAsking) return;
    isAsking = true;
    clearTimeout(timer);
    const stop = new AbortController();
    const patience = setTimeout(() => stop.abort(), PATIENCE);
    try {
      const answer = await fetch(location.pathname, { cache: 'no-store', signal: stop.signal });
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const state = page.getElementById('state');
      if (!answer.ok || !state) throw new Error('status ' + answer.status);
      change(document.getElementById('state'), state);
      document.title = page.title;
      document.querySelector('link[rel=icon]').href = page.querySelector('link[rel=icon]').getAttribute('href');
      say('');
    } catch (error) {
      const why = error.message.startsWith('status ') ? ' (' + error.message + ')' : '';
      say('The server does not answer since ' + document.getElementById('asof').textContent + why + '. What follows is from then.');
    } finally {
      clearTimeout(patience);
      isAsking = false;
      if (!isPaused) timer = setTimeout(look, PAUSE);
    }
  }

  // A page that is not seen does not ask.
  const look = () => { if (!document.hidden && !isPaused) ask(); };

  document.addEventListener('visibilitychange', look);
  button.addEventListener('click', () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? 'Resume' : 'Pause';
    clearTimeout(timer);
    look();
  });
  button.hidden = false;
  timer = setTimeout(look, PAUSE);
})();
