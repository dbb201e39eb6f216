// One host: its resources stacked by process, and below, everything of the chosen moment or window.
import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import { hostPath, type Schemas } from "../api/client";
import { useAsked } from "../api/use";
import { forget } from "../components/colours";
import { RangePicker } from "../components/range";
import { Failed, Loading } from "../components/states";
import { place } from "../router";
import { Charts } from "./host/charts";
import { Head } from "./host/head";
import { Tabs } from "./host/tabs";

export function HostView(): VNode {
  const host = place.value.subject;
  const detail = useAsked<Schemas["HostDetail"]>(hostPath(host));
  useEffect(forget, [host]);
  if (detail.data === null && detail.error) return <Failed error={detail.error} again={detail.again} />;
  return (
    <div class="view">
      <div class="bar">
        {detail.data ? <Head host={detail.data} /> : <Loading />}
        <RangePicker />
      </div>
      <Charts key={host} host={host} />
      <Tabs host={host} detail={detail.data} />
    </div>
  );
}
