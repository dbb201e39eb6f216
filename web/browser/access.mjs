// Logging in and out, what the server sends with the page, how large a first visit is.
import assert from "node:assert/strict";
import { given, Visitor } from "./kit.mjs";

export async function a_wrong_key_is_refused_and_a_right_one_lets_in(browser) {
  const visitor = await Visitor.arrive(browser);
  visitor.expected.push("401");
  await visitor.open("/server");
  await visitor.page.getByLabel(/API/).waitFor();
  await visitor.accessible("login");
  await visitor.picture("login-dark");
  await visitor.page.getByLabel(/API/).fill("pfk1_00000000000000000000000000000000_wrong");
  await visitor.page.keyboard.press("Enter");
  await visitor.page.getByRole("alert").waitFor();
  await visitor.logIn();
  assert.equal(new URL(visitor.page.url()).pathname, "/server", "the link leads where it should after the login");
  const [cookie] = await visitor.context.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && cookie.expires > 0, JSON.stringify(cookie));
  assert.equal(await visitor.page.evaluate(() => document.cookie), "");
  await visitor.page.reload();
  await visitor.page.locator("header.menu").waitFor();
  await visitor.page.getByRole("button", { name: "Log out" }).click();
  await visitor.page.getByLabel(/API/).waitFor();
  assert.deepEqual(await visitor.context.cookies(), []);
  await visitor.open("/");
  await visitor.page.getByLabel(/API/).waitFor();
  await visitor.leave();
}

export async function a_session_ends_on_the_server_too(browser) {
  const visitor = await Visitor.arrive(browser);
  // Of what the page still asks for when the session ends; the browser notes it.
  visitor.expected.push("401");
  await visitor.open("/");
  await visitor.logIn(given.viewerKey);
  const [cookie] = await visitor.context.cookies();
  const ask = (headers, method = "GET", path = "/v1/hosts") => fetch(given.url + path, { method, headers });
  const headers = { cookie: `${cookie.name}=${cookie.value}` };
  assert.equal((await ask(headers)).status, 200);
  assert.equal((await ask(headers, "POST", "/v1/enrollment-tokens")).status, 403, "no proof that our page sent it");
  assert.equal((await ask({ ...headers, "sec-fetch-site": "cross-site" }, "DELETE", "/v1/session")).status, 403);
  await visitor.page.getByRole("button", { name: "Log out" }).click();
  await visitor.page.getByLabel(/API/).waitFor();
  assert.equal((await ask(headers)).status, 401, "the old cookie is worth nothing");
  await visitor.leave();
}

export async function the_page_is_small_strict_and_cached(browser) {
  const visitor = await Visitor.arrive(browser);
  const sizes = [];
  const session = await visitor.context.newCDPSession(visitor.page);
  await session.send("Network.enable");
  session.on("Network.loadingFinished", ({ encodedDataLength }) => sizes.push(encodedDataLength));
  await visitor.open("/");
  await visitor.page.getByLabel(/API/).waitFor();
  const total = sizes.reduce((sum, size) => sum + size, 0);
  assert.ok(total > 10_000 && total < 250_000, `a first visit transfers ${total} bytes`);
  console.log(`        a first visit transfers ${total} bytes`);
  const answer = await fetch(given.url);
  const policy = answer.headers.get("content-security-policy");
  assert.match(policy, /default-src 'none'.*script-src 'self'.*frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  for (const [name, value] of [["x-content-type-options", "nosniff"], ["x-frame-options", "DENY"], ["referrer-policy", "no-referrer"], ["cache-control", "no-cache"]]) {
    assert.equal(answer.headers.get(name), value);
  }
  const script = /\/assets\/[\w.-]+\.js/.exec(await answer.text())[0];
  const asset = await fetch(given.url + script, { headers: { "accept-encoding": "gzip" } });
  assert.match(asset.headers.get("cache-control"), /immutable/);
  assert.equal(asset.headers.get("content-encoding"), "gzip");
  const again = await fetch(given.url, { headers: { "if-none-match": answer.headers.get("etag") } });
  assert.equal(again.status, 304);
  assert.equal((await fetch(`${given.url}/host/x/y`)).status, 404);
  assert.equal((await fetch(`${given.url}/assets/none.js`)).status, 404);
  await visitor.leave();
}
