// A process in a table: its colour, its short name, its command line, and where to read on.
import type { VNode } from "preact";
import { Inert } from "../inert";
import { address, when } from "../router";
import { nameOf } from "../stack";
import { t } from "../texts";
import { Chip } from "./chip";
import { knownColour } from "./colours";

interface Props {
  processId: string | null | undefined;
  commandLine: string | null | undefined;
  executable?: string | null | undefined;
  host?: string | null | undefined;
}

export function ProcessCell({ processId, commandLine, executable, host }: Props): VNode {
  if (!processId) return <span class="process"><Chip colour={undefined} /><span class="unknown">{t("stack.undescribed")}</span></span>;
  const query = { ...when(), host: host ?? null };
  return (
    <span class="process">
      <Chip colour={knownColour(processId)} />
      <a data-here href={address("process", processId, query)}><bdi class="name">{nameOf(executable, commandLine)}</bdi></a>
      <Inert class="command" text={commandLine} />
    </span>
  );
}
