// The frame around every view: where to go, who is logged in, how it looks and speaks.
import type { VNode } from "preact";
import { Failed, Loading } from "./components/states";
import { address, place, when, type View } from "./router";
import { logOut, recall, session, trouble } from "./session";
import { language, languages, speak, t, type Key } from "./texts";
import { theme, toggle } from "./theme";
import { AlertsView } from "./views/alerts";
import { FleetView } from "./views/fleet";
import { HostView } from "./views/host";
import { HostsView } from "./views/hosts";
import { LoginView } from "./views/login";
import { ProcessView } from "./views/process";
import { SearchView } from "./views/search";
import { ServerView } from "./views/server";

const MENU: { view: Exclude<View, "unknown">; text: Key; also?: View }[] = [
  { view: "fleet", text: "menu.fleet", also: "host" },
  { view: "search", text: "menu.search", also: "process" },
  { view: "alerts", text: "menu.alerts" },
  { view: "hosts", text: "menu.hosts" },
  { view: "server", text: "menu.server" },
];

export function Preferences(): VNode {
  const other = languages.find(({ id }) => id !== language.value);
  return (
    <div class="preferences">
      {other && <button type="button" lang={other.id} title={t("menu.language")} onClick={() => speak(other.id)}>{other.name}</button>}
      <button type="button" title={t("menu.theme")} aria-label={t("menu.theme")} onClick={toggle}>{theme.value === "dark" ? "☀" : "☾"}</button>
    </div>
  );
}

function Menu(): VNode {
  const { view } = place.value;
  return (
    <header class="menu">
      <a class="brand" data-here href={address("fleet", "", when())}>
        <svg viewBox="0 0 16 16" aria-hidden="true"><path class="bars" d="M1 13V9h3v4zm4 0V6h3v7zm8 0V8h3v5z" /><path class="culprit" d="M9 3h3v10H9z" /></svg>
        Procfleet
      </a>
      <nav aria-label={t("menu.label")}>
        {MENU.map((item) => (
          <a key={item.view} data-here href={address(item.view, "", when())} aria-current={view === item.view ? "page" : view === item.also ? "true" : undefined}>{t(item.text)}</a>
        ))}
      </nav>
      <Preferences />
      <span class="who" title={session.value?.role}><bdi>{session.value?.name}</bdi></span>
      <button type="button" class="quiet" onClick={() => void logOut()}>{t("menu.logout")}</button>
    </header>
  );
}

function Current(): VNode {
  const { view, subject } = place.value;
  switch (view) {
    case "fleet": return <FleetView />;
    case "host": return <HostView key={subject} />;
    case "process": return <ProcessView key={subject} />;
    case "search": return <SearchView />;
    case "alerts": return <AlertsView />;
    case "hosts": return <HostsView />;
    case "server": return <ServerView />;
    case "unknown": return <div class="state">{t("state.nowhere")}</div>;
  }
}

export function App(): VNode {
  if (session.value === undefined) {
    return <main class="alone">{trouble.value ? <Failed error={trouble.value} again={() => void recall()} /> : <Loading />}</main>;
  }
  if (session.value === null) return <LoginView />;
  return (
    <>
      <a class="skip" href="#main">{t("menu.skip")}</a>
      <Menu />
      <main id="main" tabIndex={-1}><Current /></main>
    </>
  );
}
