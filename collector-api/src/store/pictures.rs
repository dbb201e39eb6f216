//! What charts show: a host's resources stacked by process, and many hosts in short.

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::ids::ProcessKey;
use super::question::Question;
use super::samples::Window;
use super::usage::Resource;

/// A question for a stack.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Of which host.
    pub host_id: Uuid,
    /// When.
    pub window: Window,
    /// Of what.
    pub resource: Resource,
    /// Most processes with values of their own.
    pub max_processes: i64,
}

/// What a process, all others, or the residual used in a bucket.
#[derive(Clone, Debug)]
pub struct StackPoint {
    /// Place of the process; null for all others and for the residual.
    pub place: Option<i64>,
    /// Whether this is the residual.
    pub is_residual: bool,
    /// Which process; null besides: its description has not arrived yet.
    pub process_id: Option<ProcessKey>,
    /// Its command line.
    pub command_line: Option<String>,
    /// The kernel's short name of its newest run on the host.
    pub executable_name: Option<String>,
    /// Its instances in the window.
    pub instance_count: Option<i64>,
    /// End of the bucket, or the sample.
    pub sampled_at: OffsetDateTime,
    /// Time that samples cover in it, ms.
    pub covered_ms: Option<i64>,
    /// Sum of µs or bytes, of memory the mean.
    pub value: Option<f64>,
}

/// How busy a host was in a bucket.
#[derive(Clone, Debug)]
pub struct SparkPoint {
    /// The host.
    pub host_id: Uuid,
    /// End of the bucket.
    pub sampled_at: OffsetDateTime,
    /// Share of CPU time spent in user and system, 0 to 1.
    pub cpu_utilization_ratio: Option<f64>,
    /// Share of memory in use, 0 to 1.
    pub memory_utilization_ratio: Option<f64>,
}

impl Question {
    /// The use of a resource by the processes of a host (see `procfleet_stack`), by time: in buckets of
    /// `step_s` seconds, or per sample.
    pub async fn stack(
        &mut self,
        stack: Stack,
        step_s: Option<f64>,
    ) -> Result<Vec<StackPoint>, StoreError> {
        sqlx::query_as!(
            StackPoint,
            r#"/* stack */
            select place, is_residual as "is_residual!", process_id as "process_id: ProcessKey", command_line,
                   executable_name, instance_count, sampled_at as "sampled_at!", covered_ms, value
            from procfleet_stack($1, $2, $3, make_interval(secs => $4), $5, $6)"#,
            stack.host_id,
            stack.window.from,
            stack.window.to,
            step_s,
            stack.resource.as_str(),
            stack.max_processes,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("stack"))
    }

    /// How busy hosts were (see `procfleet_sparklines`), by host and time.
    pub async fn sparklines(
        &mut self,
        hosts: &[Uuid],
        window: Window,
        step_s: f64,
    ) -> Result<Vec<SparkPoint>, StoreError> {
        sqlx::query_as!(
            SparkPoint,
            r#"/* sparklines */
            select host_id as "host_id!", sampled_at as "sampled_at!", cpu_utilization_ratio, memory_utilization_ratio
            from procfleet_sparklines($1, $2, $3, make_interval(secs => $4))"#,
            hosts,
            window.from,
            window.to,
            step_s,
        )
        .fetch_all(self.connection()?)
        .await
        .map_err(StoreError::of("sparklines"))
    }
}
