// What every scenario uses: a page that tolerates nothing (console errors, requests to elsewhere,
// violations of the policy), pictures, and axe.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
// Only ever waited for in full by a scenario that fails; a machine that compiles meanwhile is slow.
const WAIT_MS = 60_000;

/** What the test that started us tells. */
export const given = JSON.parse(process.env.PROCFLEET_BROWSER_TEST ?? "{}");

export class Visitor {
  constructor(page, context, complaints) {
    Object.assign(this, { page, context, complaints, expected: [] });
  }

  /** A browser of its own: no cookie, no kept choice. */
  static async arrive(browser, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-GB", colorScheme: "dark", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS);
    page.setDefaultNavigationTimeout(WAIT_MS);
    const complaints = [];
    const visitor = new Visitor(page, context, complaints);
    const note = (text) => {
      if (!visitor.expected.some((words) => text.includes(words))) complaints.push(text);
    };
    visitor.openRequests = 0;
    page.on("request", () => (visitor.openRequests += 1));
    for (const end of ["requestfinished", "requestfailed"]) page.on(end, () => (visitor.openRequests -= 1));
    page.on("console", (message) => message.type() === "error" && note(`console: ${message.text()} ${message.location().url}`));
    page.on("pageerror", (error) => note(`page: ${error.stack ?? error}`));
    page.on("dialog", (dialog) => note(`dialog: ${dialog.message()}`));
    page.on("request", (request) => request.url().startsWith(given.url) || request.url().startsWith("blob:") || note(`elsewhere: ${request.url()}`));
    await page.exposeFunction("violated", (text) => note(`policy: ${text}`));
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => window.violated(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
    });
    return visitor;
  }

  async open(path) {
    await this.page.goto(given.url + path);
  }

  /** Logs in on whatever page this is. */
  async logIn(key = given.adminKey) {
    await this.page.getByLabel(/API/).fill(key);
    await this.page.keyboard.press("Enter");
    await this.page.locator("header.menu").waitFor();
  }

  /** Waits until nothing is loading. */
  async settled() {
    const deadline = performance.now() + WAIT_MS;
    for (let quiet = 0; quiet < 3; ) {
      assert.ok(performance.now() < deadline, "the page never settles");
      const busy = this.openRequests > 0 || (await this.page.locator(".spinner, .stale").count()) > 0;
      quiet = busy ? 0 : quiet + 1;
      await this.page.waitForTimeout(50);
    }
  }

  async picture(name) {
    await this.page.screenshot({ path: join(given.artefacts, `${name}.png`) });
  }

  /** No serious finding. */
  async accessible(where) {
    // From outside the page's world: its policy lets no script in.
    const found = await this.page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
    const serious = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    const text = serious.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join("\n  ")}`);
    assert.deepEqual(text, [], `axe on ${where}`);
  }

  async leave() {
    await this.context.close();
    assert.deepEqual(this.complaints, []);
  }
}
