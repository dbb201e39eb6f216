// One host: finding the culprit, zooming, links, hostile command lines.
import assert from "node:assert/strict";
import { given, Visitor } from "./kit.mjs";

async function visit(browser, path, options = {}) {
  const visitor = await Visitor.arrive(browser, options);
  await visitor.open(path);
  await visitor.logIn(given.viewerKey);
  return visitor;
}

/** Four panels are there, drawn or saying why not, and nothing is on its way. */
const charted = async (visitor) => {
  await visitor.page.locator(".charts .plot").nth(3).waitFor();
  await visitor.page.locator(".charts .plot canvas").first().waitFor();
  await visitor.settled();
};

/** Where in the CPU chart the culprit was busy, px. `shown`: the answer that the chart draws. */
async function busyAt(page, shown) {
  const stack = await page.evaluate(async (host) => (await fetch(`/v1/hosts/${host}/stack?from=-15m&sort=cpu&limit=50`)).json(), given.hostId);
  const culprit = stack.processes.find((line) => line.process_id === given.culpritId);
  assert.ok(culprit, "the culprit is in the stack");
  const times = stack.times_ms.filter((_, at) => (culprit.values[at] ?? 0) > 0);
  const middle = times[Math.floor(times.length / 2)];
  const box = await page.locator(".charts .u-over").first().boundingBox();
  const [from, to] = [Date.parse(shown.from), Date.parse(shown.to)];
  return { x: box.x + ((middle - from) / (to - from)) * box.width, y: box.y + box.height / 2 };
}

export async function the_culprit_is_found_in_three_clicks(browser) {
  const visitor = await visit(browser, `/?from=-15m&q=${encodeURIComponent(given.hostName)}`);
  const { page } = visitor;
  let shown = null;
  page.on("response", async (response) => {
    if (/\/stack\?.*sort=cpu&limit=10$/.test(response.url()) && response.ok()) shown = await response.json().catch(() => shown);
  });
  await page.locator(".host-name a").first().click();
  await charted(visitor);
  const { x, y } = await busyAt(page, shown);
  await page.mouse.move(x, y);
  await page.mouse.click(x, y);
  await page.locator(".moment-note.chosen").waitFor();
  await visitor.settled();
  await visitor.picture("host-moment-dark");
  await visitor.accessible("host");
  const row = page.locator(`#tab-content a[href*="${given.culpritId}"]`);
  await row.first().click();
  await page.locator(".command-line").waitFor();
  assert.match(await page.locator(".command-line").textContent(), /workload --database=billing/);
  assert.doesNotMatch(await page.content(), /hunter2/, "secrets stay on the host");
  await charted(visitor);
  await visitor.picture("process-dark");
  await visitor.accessible("process");
  await visitor.leave();
}

export async function dragging_zooms_and_back_zooms_out(browser) {
  const visitor = await visit(browser, `/host/${given.simulatedId}?from=-3h`);
  const { page } = visitor;
  await charted(visitor);
  await visitor.picture("host-simulated-dark");
  const before = new URL(page.url()).search;
  const box = await page.locator(".charts .u-over").first().boundingBox();
  const y = box.y + box.height / 2;
  await page.mouse.move(box.x + box.width * 0.4, y);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, y, { steps: 4 });
  await page.mouse.move(box.x + box.width * 0.6, y, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction((before) => location.search !== before, before);
  const query = new URL(page.url()).searchParams;
  const length = Date.parse(query.get("to")) - Date.parse(query.get("from"));
  assert.ok(length > 20 * 60_000 && length < 50 * 60_000, `a fifth of three hours, not ${length} ms`);
  await charted(visitor);
  await visitor.picture("host-zoomed-dark");
  await page.goBack();
  assert.equal(new URL(page.url()).search, before);
  await charted(visitor);
  await visitor.leave();
}

export async function a_link_shows_a_colleague_the_same(browser) {
  const visitor = await visit(browser, `/host/${given.simulatedId}?from=-3h`, { colorScheme: "light" });
  const { page } = visitor;
  await charted(visitor);
  const box = await page.locator(".charts .u-over").nth(1).boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 50);
  await page.mouse.click(box.x + box.width * 0.5, box.y + 50);
  await page.locator(".moment-note.chosen").waitFor();
  await page.getByRole("tab", { name: "Connections" }).click();
  await page.getByRole("button", { name: "Earlier" }).click();
  await visitor.settled();
  const link = page.url().slice(given.url.length);
  assert.match(link, /sort=memory/);
  assert.match(link, /tab=connections/);
  const shown = await page.locator("#tab-content").innerText();
  const note = await page.locator(".moment-note").innerText();
  await visitor.picture("host-light");
  await visitor.accessible("host, light");
  const colleague = await visit(browser, link);
  await charted(colleague);
  await colleague.page.locator("#tab-content table").waitFor();
  assert.equal(await colleague.page.locator("#tab-content").innerText(), shown);
  assert.equal(await colleague.page.locator(".moment-note").innerText(), note);
  await colleague.leave();
  await visitor.leave();
}

export async function every_table_of_a_host_is_drawn(browser) {
  const visitor = await visit(browser, `/host/${given.hostId}`);
  const { page } = visitor;
  await charted(visitor);
  for (const tab of ["Processes", "Changes since an hour before", "Connections", "Exits", "File systems", "Block devices", "Interfaces"]) {
    await page.getByRole("tab", { name: tab, exact: true }).click();
    await visitor.settled();
    await page.locator("#tab-content table, #tab-content .state").first().waitFor();
    assert.equal(await page.locator("#tab-content .failed").count(), 0, tab);
    if (tab !== "Exits" && tab !== "Interfaces") await visitor.accessible(tab);
    await visitor.picture(`tab-${tab.split(" ")[0].toLowerCase()}`);
  }
  await page.locator(".plot").first().focus();
  for (const key of ["ArrowLeft", "ArrowLeft", "ArrowLeft", "Enter"]) await page.keyboard.press(key);
  await page.locator(".moment-note.chosen").waitFor();
  await visitor.leave();
}

export async function hostile_command_lines_are_inert(browser) {
  const visitor = await visit(browser, `/search?q=${encodeURIComponent("onerror")}`);
  const { page } = visitor;
  await page.locator("#main table").waitFor();
  const inert = async (where) => {
    assert.equal(await page.evaluate(() => window.hacked), undefined, where);
    assert.equal(await page.locator("#main img, #main script, #main iframe, #main b").count(), 0, where);
    // Nothing reorders what stands beside it, nothing hides.
    const text = await page.locator("#main").innerText();
    assert.doesNotMatch(text, /[\u202a-\u202e\u2066-\u2069\u200b-\u200f\u0000-\u0008]/, where);
  };
  await inert("search");
  await visitor.picture("hostile-search");
  await page.locator("#main td a").first().click();
  await page.locator(".command-line").waitFor();
  const shown = await page.locator(".command-line").innerText();
  assert.match(shown, /<img src=x onerror=/);
  assert.match(shown, /U\+200B/, "what would hide is shown");
  assert.ok(shown.length > 2000, `${shown.length} characters`);
  await visitor.settled();
  await inert("process");
  await visitor.picture("hostile-process");
  await visitor.open(`/host/${given.hostId}?from=-1h`);
  await charted(visitor);
  await inert("host");
  // Agents clean command lines; a host that was taken over sends what it likes.
  const worst = `\u202e\u2066gnp.exe\u0000\u001b[31m\u2028<img src=x onerror="window.hacked=1">${"<b>".repeat(1300)}`;
  await page.route("**/v1/processes?**", (route) => route.fulfill({
    json: { items: [{ process_id: given.culpritId, command_line: worst, first_seen_at: "2026-01-01T00:00:00Z", host_count: 1, hosts: [{ host_id: given.hostId, host_name: worst, executable_name: worst }] }], next: null },
  }));
  await visitor.open("/search?q=worst");
  await page.locator("#main table").waitFor();
  await inert("search, worst");
  assert.match(await page.locator("#main table").innerText(), /U\+202E.*U\+2066.*U\+0000.*U\+001B.*U\+2028/);
  await visitor.picture("hostile-worst");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, "a long command line does not widen the page");
  await visitor.leave();
}
