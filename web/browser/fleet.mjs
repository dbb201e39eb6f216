// The list of a thousand hosts.
import assert from "node:assert/strict";
import { given, Visitor } from "./kit.mjs";

async function fleet(browser, path = "/", options = {}) {
  const visitor = await Visitor.arrive(browser, options);
  await visitor.open(path);
  await visitor.logIn();
  return visitor;
}

const rows = (visitor) => visitor.page.locator(".virtual-body [role=row]");

export async function a_thousand_hosts_are_listed_filtered_and_sorted(browser) {
  const visitor = await fleet(browser);
  const { page } = visitor;
  await rows(visitor).first().waitFor();
  await visitor.settled();
  const count = Number(await page.locator(".virtual").getAttribute("aria-rowcount")) - 1;
  assert.ok(count >= 1000, `${count} hosts`);
  assert.ok((await rows(visitor).count()) < 100, "only those in sight are in the document");
  await page.locator(".spark path[d*=L]").first().waitFor({ state: "attached" });
  await visitor.picture("fleet-dark");
  await visitor.accessible("fleet");
  await page.locator(".virtual").evaluate((list) => (list.scrollTop = 20_000));
  await page.waitForFunction(() => Number(document.querySelector(".virtual-body [role=row]").getAttribute("aria-rowindex")) > 500);
  await page.getByRole("searchbox").fill("env=prod row-99");
  await page.waitForFunction(() => document.querySelectorAll(".virtual-body [role=row]").length < 20);
  assert.ok((await rows(visitor).count()) > 0);
  assert.match(page.url(), /q=env%3Dprod/);
  await page.getByRole("searchbox").fill("");
  await page.getByRole("columnheader", { name: "CPU" }).first().getByRole("button").click();
  assert.match(page.url(), /order=cpu/);
  const shares = await page.locator(".virtual-body [role=row] .host-meter:nth-child(3) .meter-value").allTextContents();
  const numbers = shares.map((text) => Number.parseFloat(text));
  assert.deepEqual(numbers, numbers.toSorted((one, other) => other - one));
  await visitor.leave();
}

export async function lines_are_drawn_by_the_answer_that_brings_them(browser) {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  // Once the rows are there, a new list is kept waiting: nothing else can cause them to be drawn again.
  let held = false;
  await page.route(/\/v1\/hosts\?/, (route) => (held ? undefined : route.continue()));
  await visitor.open("/");
  await visitor.logIn();
  await rows(visitor).first().waitFor();
  held = true;
  await page.locator(".spark path[d*=L]").first().waitFor({ state: "attached" });
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await visitor.leave();
}

export async function typing_and_scrolling_stay_quick(browser) {
  const visitor = await fleet(browser);
  const { page } = visitor;
  await rows(visitor).first().waitFor();
  await visitor.settled();
  const scroll = await page.evaluate(async () => {
    const started = performance.now();
    document.querySelector(".virtual").scrollTop = 15_000;
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - started;
  });
  console.log(`        scrolling 440 rows took ${Math.round(scroll)} ms to paint`);
  await visitor.leave();
}

export async function the_page_speaks_chinese_and_shines(browser) {
  const visitor = await fleet(browser, "/", { colorScheme: "light" });
  const { page } = visitor;
  await rows(visitor).first().waitFor();
  await visitor.settled();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
  await visitor.picture("fleet-light");
  await visitor.accessible("fleet, light");
  await page.getByRole("button", { name: "中文" }).click();
  await page.getByRole("link", { name: "机群" }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-CN");
  await visitor.picture("fleet-chinese");
  await page.getByRole("button", { name: "深色或浅色" }).click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await page.reload();
  await page.getByRole("link", { name: "机群" }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark", "both choices are kept");
  await page.getByRole("button", { name: "English" }).click();
  await page.getByRole("link", { name: "Fleet", exact: true }).waitFor();
  await visitor.leave();
}

export async function a_host_is_opened_by_keyboard(browser) {
  const visitor = await fleet(browser, `/?q=${encodeURIComponent(given.hostName)}`);
  const { page } = visitor;
  await rows(visitor).first().waitFor();
  for (let tries = 0; tries < 40; tries += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement?.matches(".host-name a"))) break;
  }
  await page.keyboard.press("Enter");
  await page.locator(".plot canvas").first().waitFor();
  assert.match(page.url(), /\/host\//);
  await visitor.leave();
}
