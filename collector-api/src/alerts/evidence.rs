//! What led to an alert: the window to look at, where the page shows it, and who was busiest in it.
//!
//! The window begins a quarter of an hour before the condition held and ends five minutes after it was over,
//! six hours later at most: what began an alert is what is looked for. Of a message's first [`MAX_ASKED`] alerts that
//! begin the busiest processes are named, [`MAX_BUSY`] of each, within [`DEADLINE`]; what cannot be found in
//! time is left out, and the message goes without it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::message::at_second;
use crate::error::Chain;
use crate::store::notifications::Notification;
use crate::store::question::Class;
use crate::store::samples::Window;
use crate::store::usage::{Resource, Subject, Top, Usage};
use crate::store::{Store, StoreError};

/// Alerts of one message whose processes are asked for.
const MAX_ASKED: usize = 3;
/// Processes named of one alert.
const MAX_BUSY: i64 = 3;
/// Longest that a message waits for all of them.
const DEADLINE: Duration = Duration::from_secs(5);
/// Before the condition held.
const BEFORE: time::Duration = time::Duration::minutes(15);
/// After it was over.
const AFTER: time::Duration = time::Duration::minutes(5);
/// Longest window.
const LONGEST: time::Duration = time::Duration::hours(6);

/// A process that was busy.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    /// Its command line, or what else is known of it: as the host sent it.
    pub name: String,
    /// Of what it used much.
    pub resource: Resource,
    /// How much: CPUs, bytes of memory, bytes moved.
    pub amount: f64,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Evidence {
    /// Begin of the window.
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    /// Its end.
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    /// The host in that window, on the web page.
    #[schema(example = "/host/0198…?from=2026-11-23T06:45:00Z&to=2026-11-23T07:10:00Z")]
    pub page: String,
    /// The top processes of the host in that window, of this API.
    #[schema(
        example = "/v1/hosts/0198…/processes?from=2026-11-23T06:45:00Z&to=2026-11-23T07:10:00Z&sort=cpu"
    )]
    pub processes: String,
}

impl Evidence {
    /// Of an alert of a host, as seen at `now`.
    pub fn of(
        host_id: Uuid,
        metric: Option<&str>,
        (began_at, resolved_at): (OffsetDateTime, Option<OffsetDateTime>),
        now: OffsetDateTime,
    ) -> Self {
        let from = began_at - BEFORE;
        let to = resolved_at.map_or(now, |end| end + AFTER).min(from + LONGEST).max(began_at);
        let window = format!("from={}&to={}", at_second(from), at_second(to));
        let sort = resource_of(metric).as_str();
        Self {
            from,
            to,
            page: format!("/host/{host_id}?{window}"),
            processes: format!("/v1/hosts/{host_id}/processes?{window}&sort={sort}"),
        }
    }

    /// Of what a notification tells; none: of the fleet.
    pub fn of_notification(item: &Notification, now: OffsetDateTime) -> Option<Self> {
        let times = (item.began_at, item.resolved_at);
        Some(Self::of(item.host_id?, item.detail["metric"].as_str(), times, now))
    }
}

/// By what processes are ranked for a metric.
fn resource_of(metric: Option<&str>) -> Resource {
    match metric.unwrap_or_default() {
        metric if metric.contains("memory") || metric.contains("swap") => Resource::Memory,
        metric if metric.contains("disk") || metric.starts_with("block_device") => Resource::Disk,
        metric if metric.starts_with("filesystem") => Resource::DiskWrite,
        metric if metric.contains("network") => Resource::Network,
        _ => Resource::Cpu,
    }
}

/// Who was busiest on the hosts of the alerts that begin, by notification.
pub async fn busiest(
    store: &Store,
    items: &[Notification],
    now: OffsetDateTime,
) -> BTreeMap<i64, Vec<Busy>> {
    let mut found = BTreeMap::new();
    let asked = async {
        for item in items.iter().filter(|item| item.kind != "resolved").take(MAX_ASKED) {
            match busiest_of(store, item, now).await {
                Ok(busy) if !busy.is_empty() => drop(found.insert(item.notification_id, busy)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), alert.id = %item.alert_id, "no evidence for a message");
                    break;
                }
            }
        }
    };
    // What was found before the deadline is told.
    drop(tokio::time::timeout(DEADLINE, asked).await);
    found
}

async fn busiest_of(
    store: &Store,
    item: &Notification,
    now: OffsetDateTime,
) -> Result<Vec<Busy>, StoreError> {
    let (Some(host_id), Some(evidence)) = (item.host_id, Evidence::of_notification(item, now))
    else {
        return Ok(Vec::new());
    };
    let resource = resource_of(item.detail["metric"].as_str());
    let top = Top {
        hosts: Some(&[host_id]),
        window: Window { from: evidence.from, to: evidence.to },
        resource,
        subject: Subject::Instance,
        limit: MAX_BUSY,
        skip: 0,
    };
    let mut question = store.question(Class::Lookup).await?;
    let rows = question.top(top).await?;
    question.answered().await?;
    Ok(rows.into_iter().filter_map(|row| busy(row, resource)).collect())
}

/// None: what the unlisted sum to, or nobody used any.
fn busy(row: Usage, resource: Resource) -> Option<Busy> {
    row.place?;
    let sum = |parts: [Option<i64>; 2]| parts.into_iter().flatten().reduce(|a, b| a + b);
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let amount = match resource {
        Resource::Cpu => row.cpu_cores?,
        Resource::Memory => row.memory_usage_bytes_max? as f64,
        Resource::DiskWrite => row.disk_write_bytes? as f64,
        Resource::Disk | Resource::DiskRead => {
            sum([row.disk_read_bytes, row.disk_write_bytes])? as f64
        }
        Resource::Network | Resource::NetworkReceive | Resource::NetworkTransmit => {
            sum([row.network_receive_bytes, row.network_transmit_bytes])? as f64
        }
    };
    let name = row.command_line.filter(|line| !line.is_empty()).or(row.executable_name)?;
    (amount > 0.0).then_some(Busy { name, resource, amount })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_window_is_around_what_happened_and_never_longer_than_six_hours() {
        let now = datetime!(2026-11-23 12:00:00 UTC);
        let began = datetime!(2026-11-23 07:00:00.123 UTC);
        let table = [
            (began, None, datetime!(2026-11-23 12:00:00 UTC)),
            (began, Some(datetime!(2026-11-23 07:10:00 UTC)), datetime!(2026-11-23 07:15:00 UTC)),
            (datetime!(2026-11-20 07:00:00 UTC), None, datetime!(2026-11-20 12:45:00 UTC)),
            // A host whose clock is ahead of ours.
            (datetime!(2026-11-23 13:00:00 UTC), None, datetime!(2026-11-23 13:00:00 UTC)),
        ];
        for (began, over, to) in table {
            let evidence = Evidence::of(Uuid::nil(), None, (began, over), now);
            assert_eq!((evidence.from, evidence.to), (began - BEFORE, to));
        }
        let evidence = Evidence::of(Uuid::nil(), Some("host.memory_ratio"), (began, None), now);
        assert_eq!(
            evidence.page,
            format!("/host/{}?from=2026-11-23T06:45:00Z&to=2026-11-23T12:00:00Z", Uuid::nil())
        );
        assert!(evidence.processes.ends_with("&sort=memory"), "{evidence:?}");
    }

    #[test]
    fn processes_are_ranked_by_what_the_rule_is_about() {
        for (metric, resource) in [
            (None, Resource::Cpu),
            (Some("process.cpu_cores"), Resource::Cpu),
            (Some("process.memory_usage_bytes"), Resource::Memory),
            (Some("host.swap_used_ratio"), Resource::Memory),
            (Some("process.disk_write_bytes_per_s"), Resource::Disk),
            (Some("block_device.utilization_ratio"), Resource::Disk),
            (Some("filesystem.used_ratio"), Resource::DiskWrite),
            (Some("network_interface.receive_bytes_per_s"), Resource::Network),
        ] {
            assert_eq!(resource_of(metric), resource, "{metric:?}");
        }
    }
}
