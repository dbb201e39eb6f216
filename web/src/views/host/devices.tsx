// File systems, block devices and network interfaces, as last sampled.
import type { VNode } from "preact";
import type { Schemas } from "../../api/client";
import { Meter } from "../../components/meter";
import { Empty } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { bytes, bytesPerSecond, perSecond, short, whole } from "../../units";

type Filesystem = Schemas["Filesystem"];
type BlockDevice = Schemas["BlockDevice"];
type Interface = Schemas["NetworkInterface"];

const share = (part: number | null | undefined, whole: number | null | undefined): number | null =>
  part === null || part === undefined || !whole ? null : part / whole;

export function Filesystems({ of }: { of: Filesystem[] }): VNode {
  const columns: Column<Filesystem>[] = [
    { id: "mount", title: t("column.mount"), wide: true, cell: (row) => <Inert text={row.mount_point} /> },
    { id: "device", title: t("column.device"), cell: (row) => <Inert text={row.device} /> },
    { id: "type", title: t("column.type"), cell: (row) => <Inert text={row.filesystem_type} /> },
    { id: "used", title: t("column.used"), number: true, cell: (row) => bytes(row.used_bytes) },
    { id: "available", title: t("column.available"), number: true, cell: (row) => bytes(row.available_bytes) },
    { id: "total", title: t("column.total"), number: true, cell: (row) => bytes(row.total_bytes) },
    { id: "share", title: t("column.usage"), cell: (row) => <Meter label={t("column.usage")} share={share(row.used_bytes, row.total_bytes)} /> },
    { id: "inodes", title: t("column.inodes"), cell: (row) => <Meter label={t("column.inodes")} share={share(row.inodes_used, row.inodes_total)} /> },
  ];
  if (of.length === 0) return <Empty>{t("filesystems.empty")}</Empty>;
  return <Table label={t("tab.filesystems")} columns={columns} rows={of} id={(row) => row.mount_point} />;
}

export function BlockDevices({ of }: { of: BlockDevice[] }): VNode {
  const speed = (row: BlockDevice, value: number | null | undefined): string => bytesPerSecond(perSecond(value, row.interval_ms));
  const columns: Column<BlockDevice>[] = [
    { id: "device", title: t("column.device"), wide: true, cell: (row) => <Inert text={row.device} /> },
    { id: "read", title: t("column.read"), number: true, cell: (row) => speed(row, row.read_bytes) },
    { id: "write", title: t("column.write"), number: true, cell: (row) => speed(row, row.write_bytes) },
    { id: "reads", title: t("column.reads"), number: true, cell: (row) => short(perSecond(row.read_operations, row.interval_ms)) },
    { id: "writes", title: t("column.writes"), number: true, cell: (row) => short(perSecond(row.write_operations, row.interval_ms)) },
    { id: "queue", title: t("column.queue"), hint: "avgqu-sz", number: true, cell: (row) => short(row.queue_length) },
    { id: "busy", title: t("column.busy"), hint: "%util", cell: (row) => <Meter label={t("column.busy")} share={row.utilization_ratio} /> },
  ];
  if (of.length === 0) return <Empty>{t("devices.empty")}</Empty>;
  return <Table label={t("tab.devices")} columns={columns} rows={of} id={(row) => row.device} />;
}

export function Interfaces({ of }: { of: Interface[] }): VNode {
  const speed = (row: Interface, value: number | null | undefined): string => bytesPerSecond(perSecond(value, row.interval_ms));
  const bits = (value: number | null | undefined): string => (value ? `${short(value / 1e6)} Mbit/s` : "–");
  const columns: Column<Interface>[] = [
    { id: "interface", title: t("column.interface"), wide: true, cell: (row) => <Inert text={row.interface} /> },
    { id: "speed", title: t("column.speed"), number: true, cell: (row) => bits(row.speed_bits_per_second) },
    { id: "receive", title: t("column.receive"), number: true, cell: (row) => speed(row, row.receive_bytes) },
    { id: "transmit", title: t("column.transmit"), number: true, cell: (row) => speed(row, row.transmit_bytes) },
    { id: "packets", title: t("column.packets"), number: true, cell: (row) => `${short(perSecond(row.receive_packets, row.interval_ms))} / ${short(perSecond(row.transmit_packets, row.interval_ms))}` },
    { id: "errors", title: t("column.errors"), number: true, cell: (row) => `${whole(row.receive_errors)} / ${whole(row.transmit_errors)}` },
    { id: "drops", title: t("column.drops"), number: true, cell: (row) => `${whole(row.receive_drops)} / ${whole(row.transmit_drops)}` },
  ];
  if (of.length === 0) return <Empty>{t("interfaces.empty")}</Empty>;
  return <Table label={t("tab.interfaces")} columns={columns} rows={of} id={(row) => row.interface} />;
}
