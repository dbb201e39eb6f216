//! What operators ask about processes: what one is, who ran a command line.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ids::{InstanceKey, ProcessKey, like_pattern};
use super::{Store, StoreError};

/// Most texts that a search looks for.
pub const MAX_SEARCH_TEXTS: usize = 6;

/// One run of a process on a host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Instance {
    /// Its key within the host.
    pub instance_id: InstanceKey,
    /// What it ran last.
    pub process_id: ProcessKey,
    /// Process id in the host's pid namespace.
    pub pid: i32,
    /// Its parent when it was first seen.
    pub parent_pid: Option<i32>,
    /// Effective user id.
    pub user_id: Option<i64>,
    /// Name of that user on the host.
    pub owner: Option<String>,
    /// The kernel's short name of it.
    pub executable_name: Option<String>,
    /// The file it executes.
    pub executable_path: Option<String>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// Kubernetes pod uid.
    pub pod_uid: Option<String>,
    /// Ports it listens on; null: unknown.
    pub service_ports: Option<Vec<i32>>,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub creation_time: OffsetDateTime,
}

/// What a process is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProcessText {
    /// md5 of the command line.
    pub process_id: ProcessKey,
    /// The command line, redacted on the host that first sent it.
    pub command_line: String,
}

/// A process that a search found, on one of the hosts that ran it.
#[derive(Clone, Debug)]
pub struct FoundRun {
    /// What.
    pub process_id: ProcessKey,
    /// Its command line.
    pub command_line: String,
    /// When the fleet first saw it.
    pub first_seen_at: OffsetDateTime,
    /// Hosts that ran it, those left out included.
    pub host_count: i64,
    /// The host; null: no host described a run of it yet.
    pub host_id: Option<Uuid>,
    /// Its name.
    pub host_name: Option<String>,
    /// The kernel's short name of the newest run there.
    pub executable_name: Option<String>,
    /// Runs known there.
    pub instance_count: Option<i64>,
    /// Start of the newest run.
    pub last_started_at: Option<OffsetDateTime>,
    /// Newest sign of it: a start, a description, or a sample of the last 15 minutes.
    pub last_seen_at: Option<OffsetDateTime>,
}

impl Store {
    /// What a process is; `None`: no host ever sent it.
    pub async fn find_process(&self, id: ProcessKey) -> Result<Option<ProcessText>, StoreError> {
        sqlx::query_as!(
            ProcessText,
            r#"/* find_process */
            select process_id as "process_id: ProcessKey", command_line
            from processes where process_id = $1"#,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("find_process"))
    }

    /// What instances of a host are, newest first.
    pub async fn find_instances(
        &self,
        host_id: Uuid,
        instances: &[InstanceKey],
    ) -> Result<Vec<Instance>, StoreError> {
        let ids: Vec<i64> = instances.iter().map(|id| id.0).collect();
        sqlx::query_as!(
            Instance,
            r#"/* find_instances */
            select instance_id as "instance_id: InstanceKey", process_id as "process_id: ProcessKey", pid, parent_pid, user_id, owner,
                   executable_name, executable_path, systemd_unit, container_id, pod_uid, service_ports, cgroup, creation_time
            from process_instances where host_id = $1 and instance_id = any($2)
            order by creation_time desc, instance_id"#,
            host_id,
            &ids,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("find_instances"))
    }

    /// Command lines that contain each of `texts` (at most [`MAX_SEARCH_TEXTS`]), by process id after `after`, each with the `max_hosts` hosts
    /// that started it last. One row per process and host.
    pub async fn search_processes(
        &self,
        texts: &[&str],
        after: Option<ProcessKey>,
        limit: i64,
        max_hosts: i64,
    ) -> Result<Vec<FoundRun>, StoreError> {
        // Unused ones are null, which planning folds away: the trigram index serves the others.
        let pattern = |index: usize| {
            texts.get(index).filter(|text| !text.is_empty()).map(|text| like_pattern(text))
        };
        sqlx::query_as!(
            FoundRun,
            r#"/* search_processes */
            with found as materialized (
                select p.process_id, p.command_line, p.first_seen_at from processes p
                where ($1::text is null or p.command_line ilike $1) and ($5::text is null or p.command_line ilike $5)
                  and ($6::text is null or p.command_line ilike $6) and ($7::text is null or p.command_line ilike $7)
                  and ($8::text is null or p.command_line ilike $8) and ($9::text is null or p.command_line ilike $9)
                  and ($2::uuid is null or p.process_id > $2)
                order by p.process_id limit $3
            ), runs as materialized (
                select i.process_id, i.host_id, count(*) as instance_count,
                       max(i.creation_time) as last_started_at, max(i.described_at) as described_at,
                       (array_agg(i.executable_name order by i.creation_time desc))[1] as executable_name,
                       row_number() over (partition by i.process_id order by max(i.creation_time) desc, i.host_id) as place,
                       count(*) over (partition by i.process_id) as host_count
                from process_instances i join found f using (process_id)
                group by i.process_id, i.host_id
            ), recent as materialized (
                select i.process_id, i.host_id, max(s.sampled_at) as sampled_at
                from procfleet_process_samples s
                join process_instances i on i.host_id = s.host_id and i.instance_id = s.instance_id
                join runs r on r.host_id = i.host_id and r.process_id = i.process_id and r.place <= $4
                where s.sampled_at > now() - interval '15 minutes'
                  and s.host_id in (select r.host_id from runs r where r.place <= $4)
                group by i.process_id, i.host_id
            )
            select f.process_id as "process_id: ProcessKey", f.command_line, f.first_seen_at,
                   coalesce(r.host_count, 0) as "host_count!", r.host_id as "host_id?", h.host_name as "host_name?",
                   r.executable_name as "executable_name?", r.instance_count as "instance_count?", r.last_started_at as "last_started_at?",
                   greatest(r.last_started_at, r.described_at, s.sampled_at) as "last_seen_at?"
            from found f
            left join runs r on r.process_id = f.process_id and r.place <= $4
            left join hosts h on h.host_id = r.host_id
            left join recent s on s.process_id = r.process_id and s.host_id = r.host_id
            order by f.process_id, r.place"#,
            pattern(0),
            after.map(|id| id.0),
            limit,
            max_hosts,
            pattern(1),
            pattern(2),
            pattern(3),
            pattern(4),
            pattern(5),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("search_processes"))
    }
}
