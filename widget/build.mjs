// Builds the one file that pages embed: `npm run build` writes ../rag/http/static/widget.js, `--out FILE` another one.
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, transform } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const given = process.argv.indexOf("--out");
const outfile = resolve(given > 0 ? process.argv[given + 1] : resolve(here, "../rag/http/static/widget.js"));

// esbuild's text loader keeps every blank of a style sheet; this one does not.
const minifiedCss = {
  name: "minified-css",
  setup(setup) {
    setup.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

// Whatever follows an answer of the server comes with its words: the file holds what is said before there is one.
const ALONE =
  "open title close fresh greetingPlain hint suggestions conversation placeholder send stop latest you answer searching " +
  "retry retryIn stopped unread offline unreachable broken internal_error recent remove removed began undo explain marked drop";
const ownTexts = {
  name: "own-texts",
  setup(setup) {
    setup.onLoad({ filter: /texts\.json$/ }, async ({ path }) => {
      const { en } = JSON.parse(await readFile(path, "utf8"));
      const own = ALONE.split(" ").map((code) => [code, en[code]]);
      return { contents: JSON.stringify({ en: Object.fromEntries(own) }), loader: "json" };
    });
  },
};

await build({
  absWorkingDir: here,
  entryPoints: ["src/main.js"],
  outfile,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* RAG Server's chat, MIT. Holds streaming-markdown, (c) 2024 Damian Tarnawski, MIT. */" },
  plugins: [minifiedCss, ownTexts],
});

const bytes = await readFile(outfile);
console.log(`${outfile}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzip`);
