//! Series and sums over windows, through the functions of the readers' migration.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use super::ids::{InstanceKey, ProcessKey};
use super::question::Question;

/// The time a question is about: `from` excluded, `to` included, because a sample stands for the
/// interval that ended at its `sampled_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Excluded.
    pub from: OffsetDateTime,
    /// Included.
    pub to: OffsetDateTime,
}

/// The host over one interval, or over a bucket of several: `*_us`, bytes and counts of events are
/// summed, everything else is the mean. A time without samples is a point with `sample_count` 0 whose
/// values are null.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostPoint {
    /// End of the interval or bucket.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Samples in it.
    pub sample_count: i64,
    /// Time they cover, ms: divide deltas by this. Of a gap between samples its length; null for a
    /// bucket without samples.
    pub interval_ms: Option<i64>,
    /// Logical CPUs.
    pub cpu_count: Option<i32>,
    /// User CPU of all CPUs, µs.
    pub cpu_user_us: Option<i64>,
    /// System CPU, µs.
    pub cpu_system_us: Option<i64>,
    /// Idle with I/O outstanding, µs.
    pub cpu_iowait_us: Option<i64>,
    /// Taken by the hypervisor, µs.
    pub cpu_steal_us: Option<i64>,
    /// Idle, µs.
    pub cpu_idle_us: Option<i64>,
    /// Load average over 1 minute.
    pub load_1m: Option<f64>,
    /// Load average over 5 minutes.
    pub load_5m: Option<f64>,
    /// Load average over 15 minutes.
    pub load_15m: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<i64>,
    /// Total minus available, bytes.
    pub memory_used_bytes: Option<i64>,
    /// Available, bytes.
    pub memory_available_bytes: Option<i64>,
    /// Free, bytes.
    pub memory_free_bytes: Option<i64>,
    /// Swap, bytes.
    pub swap_total_bytes: Option<i64>,
    /// Swap in use, bytes.
    pub swap_used_bytes: Option<i64>,
    /// Some task stalled on CPU, µs.
    pub pressure_cpu_some_us: Option<i64>,
    /// Some task stalled on memory, µs.
    pub pressure_memory_some_us: Option<i64>,
    /// All tasks stalled on memory, µs.
    pub pressure_memory_full_us: Option<i64>,
    /// Some task stalled on I/O, µs.
    pub pressure_io_some_us: Option<i64>,
    /// All tasks stalled on I/O, µs.
    pub pressure_io_full_us: Option<i64>,
    /// Seconds since boot, at the end.
    pub uptime_s: Option<i64>,
    /// Runnable tasks.
    pub processes_running: Option<f64>,
    /// Processes present.
    pub processes_total: Option<f64>,
    /// Context switches.
    pub context_switches: Option<i64>,
    /// Forks, threads included.
    pub forks: Option<i64>,
    /// Read from block devices, bytes; devices stacked upon others (dm, md, loop, ram) left out.
    pub disk_read_bytes: Option<i64>,
    /// Written to block devices, bytes.
    pub disk_write_bytes: Option<i64>,
    /// Received by interfaces other than `lo`, bytes with headers.
    pub network_receive_bytes: Option<i64>,
    /// Transmitted by interfaces other than `lo`, bytes with headers.
    pub network_transmit_bytes: Option<i64>,
    /// CPU the agent used, µs.
    pub agent_cpu_us: Option<i64>,
    /// Resident set of the agent, bytes.
    pub agent_memory_usage_bytes: Option<i64>,
    /// Reports in the agent's spool.
    pub agent_spool_reports: Option<i64>,
    /// Bytes of the agent's spool.
    pub agent_spool_bytes: Option<i64>,
}

/// The host as a whole over a window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HostTotals {
    /// Samples in the window.
    pub sample_count: i64,
    /// Time they cover, ms.
    pub covered_ms: Option<i64>,
    /// Logical CPUs, the most seen.
    pub cpu_count: Option<i32>,
    /// User CPU, µs.
    pub cpu_user_us: Option<i64>,
    /// System CPU, µs. Includes interrupts, which belong to no process.
    pub cpu_system_us: Option<i64>,
    /// Idle with I/O outstanding, µs.
    pub cpu_iowait_us: Option<i64>,
    /// Taken by the hypervisor, µs.
    pub cpu_steal_us: Option<i64>,
    /// Idle, µs.
    pub cpu_idle_us: Option<i64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<i64>,
    /// Highest use, bytes.
    pub memory_used_bytes_max: Option<i64>,
    /// Mean use, bytes.
    pub memory_used_bytes_mean: Option<i64>,
    /// Highest use of swap, bytes.
    pub swap_used_bytes_max: Option<i64>,
    /// Read from block devices, bytes; devices stacked upon others (dm, md, loop, ram) left out.
    pub disk_read_bytes: Option<i64>,
    /// Written to block devices, bytes.
    pub disk_write_bytes: Option<i64>,
    /// Received by interfaces other than `lo`, bytes with headers.
    pub network_receive_bytes: Option<i64>,
    /// Transmitted by interfaces other than `lo`, bytes with headers.
    pub network_transmit_bytes: Option<i64>,
}

/// One instance of a process over one interval, or over a bucket of several: deltas are summed,
/// memory, threads and file descriptors are the mean.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProcessPoint {
    /// Whose.
    pub instance_id: InstanceKey,
    /// End of the interval or bucket.
    #[serde(with = "time::serde::rfc3339")]
    pub sampled_at: OffsetDateTime,
    /// Samples in it; 0 for a gap: it was not there, too small to keep, or nothing came.
    pub sample_count: i64,
    /// Time they cover, ms: divide deltas by this.
    pub interval_ms: Option<i64>,
    /// User CPU, µs.
    pub cpu_user_us: Option<i64>,
    /// System CPU, µs.
    pub cpu_system_us: Option<i64>,
    /// CPUs kept busy in the busiest of the samples.
    pub cpu_cores_max: Option<f64>,
    /// Resident set, bytes.
    pub memory_usage_bytes: Option<i64>,
    /// Highest resident set, bytes.
    pub memory_usage_bytes_max: Option<i64>,
    /// Swapped out, bytes.
    pub memory_swap_bytes: Option<i64>,
    /// Fetched from storage, bytes.
    pub disk_read_bytes: Option<i64>,
    /// Sent to storage, bytes.
    pub disk_write_bytes: Option<i64>,
    /// Received over sockets, bytes.
    pub network_receive_bytes: Option<i64>,
    /// Transmitted over sockets, bytes.
    pub network_transmit_bytes: Option<i64>,
    /// Runnable but not running, µs.
    pub run_queue_delay_us: Option<i64>,
    /// Minor page faults.
    pub paging_faults_minor: Option<i64>,
    /// Major page faults.
    pub paging_faults_major: Option<i64>,
    /// Voluntary context switches.
    pub context_switches_voluntary: Option<i64>,
    /// Involuntary context switches.
    pub context_switches_involuntary: Option<i64>,
    /// Threads.
    pub thread_count: Option<f64>,
    /// Open file descriptors.
    pub file_descriptor_count: Option<f64>,
    /// Instances of the process in the window, those left out included.
    #[serde(skip)]
    pub instances_in_window: i64,
}

/// Which series of a process on a host.
#[derive(Clone, Copy, Debug)]
pub struct ProcessSeries {
    /// The host.
    pub host_id: Uuid,
    /// What ran; `None`: whatever the instance ran.
    pub process_id: Option<ProcessKey>,
    /// Only this run of it.
    pub instance_id: Option<InstanceKey>,
    /// When.
    pub window: Window,
}

impl Question {
    /// The series of a host, in buckets of `step_s` seconds or per sample; at most `limit` points.
    pub async fn host_series(
        &mut self,
        host_id: Uuid,
        window: Window,
        step_s: Option<f64>,
        limit: i64,
    ) -> Result<Vec<HostPoint>, StoreError> {
        sqlx::query_as!(
            HostPoint,
            r#"/* host_series */
            select sampled_at as "sampled_at!", sample_count as "sample_count!", interval_ms, cpu_count,
                   cpu_user_us, cpu_system_us, cpu_iowait_us, cpu_steal_us, cpu_idle_us,
                   load_1m, load_5m, load_15m,
                   memory_total_bytes, memory_used_bytes, memory_available_bytes, memory_free_bytes,
                   swap_total_bytes, swap_used_bytes,
                   pressure_cpu_some_us, pressure_memory_some_us, pressure_memory_full_us,
                   pressure_io_some_us, pressure_io_full_us,
                   uptime_s, processes_running, processes_total, context_switches, forks,
                   disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes,
                   agent_cpu_us, agent_memory_usage_bytes, agent_spool_reports, agent_spool_bytes
            from procfleet_host_series($1, $2, $3, $4::double precision * interval '1 second')
            order by sampled_at limit $5"#,
            host_id,
            window.from,
            window.to,
            step_s,
            limit,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("host_series"))
    }

    /// Sums of a host over a window.
    pub async fn host_totals(
        &mut self,
        host_id: Uuid,
        window: Window,
    ) -> Result<HostTotals, StoreError> {
        sqlx::query_as!(
            HostTotals,
            r#"/* host_totals */
            select sample_count as "sample_count!", covered_ms, cpu_count,
                   cpu_user_us, cpu_system_us, cpu_iowait_us, cpu_steal_us, cpu_idle_us,
                   memory_total_bytes, memory_used_bytes_max, memory_used_bytes_mean, swap_used_bytes_max,
                   disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes
            from procfleet_host_totals($1, $2, $3)"#,
            host_id,
            window.from,
            window.to,
        )
        .fetch_one(self.connection()?)
        .await
        .map_err(StoreError::of("host_totals"))
    }

    /// The series of a process on a host, in buckets of `step_s` seconds or per sample, of the
    /// `max_instances` instances seen last; at most `limit` points, by time and instance.
    pub async fn process_series(
        &mut self,
        series: ProcessSeries,
        step_s: Option<f64>,
        max_instances: i64,
        limit: i64,
    ) -> Result<Vec<ProcessPoint>, StoreError> {
        sqlx::query_as!(
            ProcessPoint,
            r#"/* process_series */
            select instance_id as "instance_id!: InstanceKey", instances_in_window as "instances_in_window!",
                   sampled_at as "sampled_at!", sample_count as "sample_count!", interval_ms,
                   cpu_user_us, cpu_system_us, cpu_cores_max, memory_usage_bytes, memory_usage_bytes_max, memory_swap_bytes,
                   disk_read_bytes, disk_write_bytes, network_receive_bytes, network_transmit_bytes,
                   run_queue_delay_us, paging_faults_minor, paging_faults_major,
                   context_switches_voluntary, context_switches_involuntary,
                   thread_count, file_descriptor_count
            from procfleet_process_series($1, $2, $3, $4, $5, $6::double precision * interval '1 second', $7)
            order by sampled_at, instance_id limit $8"#,
            series.host_id,
            series.process_id.map(|id| id.0),
            series.instance_id.map(|id| id.0),
            series.window.from,
            series.window.to,
            step_s,
            max_instances,
            limit,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("process_series"))
    }

    /// The finest step that a series of `subject` (`process`, `host`) over a window can have, seconds;
    /// 0: every sample of it is kept.
    pub async fn finest_step(&mut self, subject: &str, window: Window) -> Result<u32, StoreError> {
        let seconds = sqlx::query_scalar!(
            r#"/* finest_step */
            select extract(epoch from procfleet_finest_step($1, $2, $3))::bigint as "seconds!""#,
            subject,
            window.from,
            window.to,
        )
        .fetch_one(self.connection()?)
        .await
        .map_err(StoreError::of("finest_step"))?;
        Ok(u32::try_from(seconds).unwrap_or(0))
    }
}
