// Runs the scenarios one after the other in Debian's Chromium. Started by fleet-sim's browser test,
// which makes the server and the data; says what it does, and ends with 1 if a scenario failed.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { FLAGS } from "./flags.mjs";
import { given } from "./kit.mjs";
import * as access from "./access.mjs";
import * as fleet from "./fleet.mjs";
import * as host from "./host.mjs";
import * as others from "./others.mjs";

const wanted = process.argv[2] ?? "";
const scenarios = [access, fleet, host, others].flatMap((part) => Object.entries(part)).filter(([name]) => name.includes(wanted));

mkdirSync(given.artefacts, { recursive: true });
const directory = mkdtempSync(join(tmpdir(), "procfleet-browser-"));
// A server of its own kind of context per scenario needs a browser, not a persistent profile; the
// profile directory is new and removed all the same.
const browser = await chromium.launch({ executablePath: given.chromium, headless: true, args: FLAGS, env: { ...process.env, HOME: directory } });
let failures = 0;
try {
  for (const [name, scenario] of scenarios) {
    const started = performance.now();
    try {
      await scenario(browser);
      console.log(`ok      ${Math.round(performance.now() - started)} ms  ${name}`);
    } catch (error) {
      failures += 1;
      console.log(`FAILED  ${name}\n${error.stack ?? error}`);
      const page = browser.contexts().at(-1)?.pages().at(-1);
      await page?.screenshot({ path: join(given.artefacts, `failed-${name}.png`) }).catch(() => undefined);
      for (const context of browser.contexts()) await context.close();
    }
  }
} finally {
  await browser.close();
  rmSync(directory, { recursive: true, force: true });
}
console.log(`${scenarios.length - failures} of ${scenarios.length} scenarios passed; pictures are in ${given.artefacts}`);
process.exitCode = failures === 0 ? 0 : 1;
