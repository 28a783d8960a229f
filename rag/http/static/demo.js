// Fills in what this page cannot know: the server's address and the site's name. The chat itself is widget.js.

const home = new URL(".", location.href);

document.getElementById("snippet").textContent = `<script src="${new URL("widget.js", home)}" defer></script>`;

fetch(new URL("widget/config", home))
  .then((response) => response.json())
  .then(({ site_name: name }) => {
    document.getElementById("site").textContent = name;
    document.title = `${name}: the chat on a page`;
  })
  .catch(() => {}); // Without an answer, the page keeps its own words.
