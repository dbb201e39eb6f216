// Every language says everything, with the same placeholders.
import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";

const directory = new URL("../src/texts/", import.meta.url).pathname;
const texts = Object.fromEntries(readdirSync(directory).map((file) => [file, JSON.parse(readFileSync(join(directory, file), "utf8"))]));
const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();

test("the languages have the same keys, none empty", () => {
  const { "en.json": english, ...others } = texts;
  assert.ok(Object.keys(others).length > 0);
  for (const [file, other] of Object.entries(others)) {
    assert.deepEqual(Object.keys(other).sort(), Object.keys(english).sort(), file);
    for (const [key, text] of Object.entries(other)) {
      assert.ok(text.trim() !== "" && english[key].trim() !== "", `${file} ${key}`);
      assert.deepEqual(placeholders(text), placeholders(english[key]), `${file} ${key}`);
    }
  }
});

const sources = (directory) =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return sources(path);
    return /\.tsx?$/.test(name) && !name.endsWith(".d.ts") ? [readFileSync(path, "utf8")] : [];
  });

test("no text is left that nothing says", () => {
  const all = sources(new URL("../src/", import.meta.url).pathname).join("\n");
  const unused = Object.keys(texts["en.json"]).filter((key) => !all.includes(`"${key}"`));
  assert.deepEqual(unused, []);
});
