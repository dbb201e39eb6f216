//! What samples refer to: `processes`, `process_instances`; and what reports say of their hosts:
//! heartbeats, facts and releases.
//!
//! Every statement takes its rows sorted by key, and every transaction runs the statements in the
//! same order, so that two transactions that touch the same keys wait for each other in one
//! direction only.

use std::collections::BTreeMap;

use shared_model::{
    HostFacts, InstanceDefinition, InstanceId, ProcessDefinition, ProcessId, Timestamp,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use super::records::PreparedReport;
use super::rollouts::releases::{self, Said};

/// An instance as the newest of the group's reports describes it.
struct Described<'a> {
    definition: &'a InstanceDefinition,
    boot_id: Uuid,
    at: Timestamp,
}

/// What the newest of the group's reports says of a host.
#[derive(Default)]
struct Heartbeat<'a> {
    /// Null when every record of the host was rejected or a gap: heard of, but nothing sampled.
    newest: Option<&'a PreparedReport>,
    facts: Option<&'a HostFacts>,
    /// Where its agent runs; null: it did not say.
    place: Option<Uuid>,
}

/// Everything but series rows that a group of reports brings.
#[derive(Default)]
pub(super) struct Dictionaries<'a> {
    processes: BTreeMap<ProcessId, &'a ProcessDefinition>,
    instances: BTreeMap<(Uuid, InstanceId), Described<'a>>,
    heartbeats: BTreeMap<Uuid, Heartbeat<'a>>,
    collisions: u64,
}

impl<'a> Dictionaries<'a> {
    /// The host was heard of.
    pub(super) fn heard(&mut self, host_id: Uuid, place: Option<Uuid>) {
        let heartbeat = self.heartbeats.entry(host_id).or_default();
        heartbeat.place = place.or(heartbeat.place);
    }

    /// Takes what a report that is about to be stored brings.
    pub(super) fn add(&mut self, host_id: Uuid, report: &'a PreparedReport) {
        for definition in &report.process_definitions {
            let known = self.processes.entry(definition.process_id).or_insert(definition);
            self.collisions += u64::from(known.command_line != definition.command_line);
        }
        for definition in &report.instance_definitions {
            let described =
                Described { definition, boot_id: report.boot_id, at: report.sampled_at };
            let key = (host_id, definition.instance_id);
            if self.instances.get(&key).is_none_or(|known| known.at <= report.sampled_at) {
                self.instances.insert(key, described);
            }
        }
        let heartbeat = self.heartbeats.entry(host_id).or_default();
        if heartbeat.newest.is_none_or(|newest| newest.sampled_at <= report.sampled_at) {
            heartbeat.newest = Some(report);
        }
        heartbeat.facts = report.facts.as_ref().or(heartbeat.facts);
    }

    /// Writes the dictionaries. Before any series, so that no transaction waits for a dictionary
    /// entry while it holds a chunk. Returns how many entries of each kind collided with another.
    pub(super) async fn save_definitions(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Collisions, StoreError> {
        let mut collisions = Collisions { processes: self.collisions, instances: 0 };
        if !self.processes.is_empty() {
            collisions.processes += self.save_processes(connection).await?;
        }
        if !self.instances.is_empty() {
            collisions.instances = self.save_instances(connection).await?;
        }
        Ok(collisions)
    }

    async fn save_processes(&self, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let ids: Vec<Uuid> = self.processes.keys().map(|id| id.0).collect();
        let lines: Vec<&str> = self.processes.values().map(|p| p.command_line.as_str()).collect();
        let inserted = sqlx::query!(
            "/* store::dictionaries::save_processes */
            insert into processes (process_id, command_line)
            select * from unnest($1::uuid[], $2::text[]) as t (process_id, line)
            order by process_id
            on conflict do nothing",
            &ids,
            &lines as _
        )
        .execute(&mut *connection)
        .await
        .map_err(StoreError::of("insert_reports.save_processes"))?
        .rows_affected();
        if inserted == ids.len() as u64 {
            return Ok(0);
        }
        // A new statement, a new snapshot: it sees what another transaction inserted meanwhile.
        let known = sqlx::query!(
            r#"/* store::dictionaries::save_processes */
            select count(*) filter (where processes.command_line <> t.line) as "collided!",
                count(processes.unreferenced_since) as "unreferenced!"
            from unnest($1::uuid[], $2::text[]) as t (process_id, line)
            join processes using (process_id)"#,
            &ids,
            &lines as _
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::of("insert_reports.compare_processes"))?;
        if known.unreferenced > 0 {
            // Whoever described it counts on it from now on.
            sqlx::query!(
                "/* store::dictionaries::save_processes */
                update processes set unreferenced_since = null
                where process_id in (
                    select process_id from processes
                    where process_id = any ($1::uuid[]) and unreferenced_since is not null
                    order by process_id for update)",
                &ids
            )
            .execute(connection)
            .await
            .map_err(StoreError::of("insert_reports.keep_processes"))?;
        }
        Ok(known.collided.cast_unsigned())
    }

    /// The newest description wins, its creation time too: hosts learn better what their
    /// clock is off. An entry of another run under the same key (a collision of the hash) stays.
    async fn save_instances(&self, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let hosts: Vec<Uuid> = self.instances.keys().map(|(host, _)| *host).collect();
        let ids: Vec<i64> = self.instances.keys().map(|(_, id)| id.0).collect();
        let of = || self.instances.values();
        let described_at: Vec<_> = of().map(|i| i.at).collect();
        let boots: Vec<_> = of().map(|i| i.boot_id).collect();
        let processes: Vec<_> = of().map(|i| i.definition.process_id.0).collect();
        let created: Vec<_> = of().map(|i| i.definition.creation_time).collect();
        let ticks: Vec<_> = of().map(|i| i.definition.start_ticks.cast_signed()).collect();
        let pids: Vec<_> = of().map(|i| i.definition.pid.cast_signed()).collect();
        let parents: Vec<_> = of().map(|i| i.definition.parent_pid.map(u32::cast_signed)).collect();
        let users: Vec<_> = of().map(|i| i.definition.user_id.map(i64::from)).collect();
        let owners: Vec<_> = of().map(|i| i.definition.owner.as_deref()).collect();
        let names: Vec<_> = of().map(|i| i.definition.executable_name.as_deref()).collect();
        let paths: Vec<_> = of().map(|i| i.definition.executable_path.as_deref()).collect();
        let cgroups: Vec<_> = of().map(|i| i.definition.cgroup.as_deref()).collect();
        let units: Vec<_> = of().map(|i| i.definition.systemd_unit.as_deref()).collect();
        let containers: Vec<_> = of().map(|i| i.definition.container_id.as_deref()).collect();
        let pods: Vec<_> = of().map(|i| i.definition.pod_uid.as_deref()).collect();
        let ports: Vec<_> = of().map(|i| array(i.definition.service_ports.as_deref())).collect();
        // A description older than the stored one is skipped too, so what was not written is
        // compared afterwards.
        let written = sqlx::query!(
            "/* store::dictionaries::save_instances */
            insert into process_instances as known (host_id, instance_id, described_at, boot_id,
                process_id, creation_time, start_ticks, pid, parent_pid, user_id, owner,
                executable_name, executable_path, cgroup, systemd_unit, container_id, pod_uid, service_ports)
            select t.host_id, t.instance_id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, ports::integer[]
            from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::uuid[], $5::uuid[],
                $6::timestamptz[], $7::bigint[], $8::integer[], $9::integer[], $10::bigint[],
                $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
                $18::text[])
                as t (host_id, instance_id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, ports)
            order by host_id, instance_id
            on conflict (host_id, instance_id) do update set
                described_at = excluded.described_at, process_id = excluded.process_id,
                creation_time = excluded.creation_time, parent_pid = excluded.parent_pid, user_id = excluded.user_id,
                owner = excluded.owner, executable_name = excluded.executable_name,
                executable_path = excluded.executable_path,
                cgroup = excluded.cgroup, systemd_unit = excluded.systemd_unit,
                container_id = excluded.container_id, pod_uid = excluded.pod_uid,
                service_ports = excluded.service_ports
            where known.described_at <= excluded.described_at
                and (known.boot_id, known.pid, known.start_ticks)
                    = (excluded.boot_id, excluded.pid, excluded.start_ticks)",
            &hosts, &ids, &described_at, &boots, &processes, &created, &ticks, &pids,
            &parents as _, &users as _, &owners as _, &names as _, &paths as _, &cgroups as _, &units as _,
            &containers as _, &pods as _, &ports as _
        )
        .execute(&mut *connection)
        .await
        .map_err(StoreError::of("insert_reports.save_instances"))?
        .rows_affected();
        if written == ids.len() as u64 {
            return Ok(0);
        }
        let collided = sqlx::query_scalar!(
            r#"/* store::dictionaries::save_instances */
            select count(*) as "count!"
            from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::integer[], $5::bigint[])
                as t (host_id, instance_id, boot_id, pid, start_ticks)
            join process_instances as known using (host_id, instance_id)
            where (known.boot_id, known.pid, known.start_ticks) <> (t.boot_id, t.pid, t.start_ticks)"#,
            &hosts, &ids, &boots, &pids, &ticks
        )
        .fetch_one(connection)
        .await
        .map_err(StoreError::of("insert_reports.compare_instances"))?;
        Ok(collided.cast_unsigned())
    }

    /// Moves the heartbeats, and updates the facts of hosts that changed. The last thing before
    /// the commit: these rows are shared by all streams of a host.
    pub(super) async fn save_hosts(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.heartbeats.is_empty() {
            return Ok(());
        }
        let hosts: Vec<Uuid> = self.heartbeats.keys().copied().collect();
        let newest = || self.heartbeats.values().map(|heartbeat| heartbeat.newest);
        let sampled: Vec<_> = newest().map(|report| report.map(|r| r.sampled_at)).collect();
        let intervals: Vec<_> =
            newest().map(|report| report.map(|r| r.interval_ms.cast_signed())).collect();
        let offsets: Vec<_> =
            newest().map(|report| report.and_then(|r| r.clock_offset_ms)).collect();
        let boots: Vec<_> = newest().map(|report| report.map(|r| r.boot_id)).collect();
        let places: Vec<_> = self.heartbeats.values().map(|heartbeat| heartbeat.place).collect();
        // Joined with hosts: a host deleted meanwhile must not make the group fail.
        sqlx::query!(
            "/* store::dictionaries::save_hosts */
            insert into heartbeats as known
                (host_id, last_seen_at, contacted_at, last_sampled_at, clock_offset_ms, interval_ms, boot_id, deadline_at,
                place, place_heard_at)
            select host_id, now(), now(), sampled_at, clock_offset_ms, interval_ms, boot_id,
                procfleet_deadline(now(), interval_ms), place, case when place is not null then now() end
            from unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::uuid[], $5::bigint[], $6::uuid[])
                as t (host_id, sampled_at, interval_ms, boot_id, clock_offset_ms, place)
            where exists (select from hosts where hosts.host_id = t.host_id)
            order by host_id
            on conflict (host_id) do update set
                last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at),
                contacted_at = greatest(known.contacted_at, excluded.contacted_at),
                goodbye = null, goodbye_at = null,
                -- A backlog says what the clock was.
                clock_offset_ms = case when excluded.last_sampled_at < known.last_sampled_at
                    then known.clock_offset_ms else excluded.clock_offset_ms end,
                last_sampled_at = greatest(known.last_sampled_at, excluded.last_sampled_at),
                interval_ms = coalesce(excluded.interval_ms, known.interval_ms),
                boot_id = coalesce(excluded.boot_id, known.boot_id),
                place = coalesce(excluded.place, known.place),
                place_heard_at = coalesce(excluded.place_heard_at, known.place_heard_at),
                deadline_at = procfleet_deadline(greatest(known.contacted_at, excluded.contacted_at),
                    coalesce(excluded.interval_ms, known.interval_ms))",
            &hosts,
            &sampled as _,
            &intervals as _,
            &boots as _,
            &offsets as _,
            &places as _
        )
        .execute(&mut *connection)
        .await
        .map_err(StoreError::of("insert_reports.save_heartbeats"))?;
        self.save_facts(connection).await?;
        let said = self.heartbeats.iter().filter_map(|(host_id, heartbeat)| {
            let newest = heartbeat.newest?;
            let (sampled_at, update) = (newest.sampled_at, newest.update.as_ref());
            Some(Said { host_id: *host_id, sampled_at, update })
        });
        releases::save(connection, &said.collect::<Vec<_>>()).await
    }

    async fn save_facts(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let changed: Vec<(Uuid, &HostFacts)> = self
            .heartbeats
            .iter()
            .filter_map(|(host, heartbeat)| heartbeat.facts.map(|facts| (*host, facts)))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let of = || changed.iter().map(|(_, facts)| *facts);
        let hosts: Vec<Uuid> = changed.iter().map(|(host, _)| *host).collect();
        let names: Vec<_> = of().map(|f| f.host_name.as_str()).collect();
        let machines: Vec<_> = of().map(|f| f.machine_id_hash.as_deref()).collect();
        let firmware: Vec<_> = of().map(|f| f.product_uuid_hash.as_deref()).collect();
        let systems: Vec<_> = of().map(|f| f.os_description.as_deref()).collect();
        let kernels: Vec<_> = of().map(|f| f.kernel_release.as_str()).collect();
        let archs: Vec<_> = of().map(|f| f.host_arch.as_str()).collect();
        let versions: Vec<_> = of().map(|f| f.agent_version.as_str()).collect();
        // The heartbeats of the same hosts are locked by now, in order: no two groups meet here.
        sqlx::query!(
            "/* store::dictionaries::save_facts */
            update hosts as h set host_name = t.name, machine_id_hash = t.machine,
                product_uuid_hash = t.firmware, os_description = t.system, kernel_release = t.kernel,
                host_arch = t.arch, agent_version = t.version, facts_updated_at = now()
            from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::text[], $8::text[]) as t (host_id, name, machine, firmware, system, kernel, arch, version)
            where h.host_id = t.host_id
                and (h.host_name, h.machine_id_hash, h.product_uuid_hash, h.os_description,
                    h.kernel_release, h.host_arch, h.agent_version)
                is distinct from (t.name, t.machine, t.firmware, t.system, t.kernel, t.arch, t.version)",
            &hosts,
            &names as _,
            &machines as _,
            &firmware as _,
            &systems as _,
            &kernels as _,
            &archs as _,
            &versions as _
        )
        .execute(&mut *connection)
        .await
        .map_err(StoreError::of("insert_reports.save_facts"))?;
        Ok(())
    }
}

/// Ports as the text of an array: arrays of arrays must not be ragged.
fn array(ports: Option<&[u16]>) -> Option<String> {
    let ports: Vec<_> = ports?.iter().map(u16::to_string).collect();
    Some(format!("{{{}}}", ports.join(",")))
}

/// Entries whose key another entry already had, with other content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collisions {
    /// Two command lines with one md5.
    pub processes: u64,
    /// Two runs with one hash.
    pub instances: u64,
}
