//! The sweep over `heartbeats`: who is silent, who came back, and what that means for the alerts.
//!
//! Every replica sweeps; the lock of the one row of `alert_sweep` lets one through at a time, and no
//! replica is special. A round is one transaction: alerts and what is to be told of them are written
//! together, or not at all. All times are the database's.
//!
//! Own outages are not the hosts'. Where no replica swept for longer than [`GAP_S`] (servers or
//! database away), every deadline moves by that long and a minute. Where at least [`DEAF_HOSTS`]
//! reported before and none of them does now (a load balancer away), that is one alert of the fleet,
//! and hosts are not judged until a deadline's time after the first report. Many who fall silent
//! within a minute are one alert, `mass_silence`; the messages about each of them wait two minutes,
//! and then come as digests.

use serde_json::json;
use time::OffsetDateTime;
mod endpoints;
mod repeats;
mod transitions;

pub use transitions::{NewAlert, open_alerts, resolve_alerts};

use super::{Store, StoreError};

/// Most alerts opened in one round; the next comes in seconds.
const MAX_OPENED: i64 = 500;
/// Nobody swept for longer: then it is unknown whether hosts were silent.
const GAP_S: f64 = 20.0;
/// A gap this long is told.
const TOLD_GAP_S: f64 = 60.0;
/// What deadlines get on top of a gap: hosts come back one after the other.
const GRACE_S: f64 = 60.0;
/// From this many on, all of them silent at once is the way to them, not they.
pub const DEAF_HOSTS: i64 = 3;
/// Fewer silent hosts are told one by one.
const MASS_HOSTS: i64 = 10;
/// Share of the fleet that makes silence a mass.
const MASS_SHARE: f64 = 0.2;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// False: another replica was at it.
    pub ran: bool,
    /// Alerts opened.
    pub opened: usize,
    /// Alerts that are over.
    pub resolved: usize,
    /// Whether deadlines were moved, because nobody had swept.
    pub gap: bool,
    /// Whether no host at all is heard of.
    pub deaf: bool,
}

struct Fleet {
    now: OffsetDateTime,
    gap_s: Option<f64>,
    was_deaf: bool,
    reporting: i64,
    silent: i64,
    newly_silent: i64,
    quiet_s: Option<f64>,
    interval_s: Option<f64>,
}

impl Fleet {
    fn is_deaf(&self) -> bool {
        let (Some(quiet_s), Some(interval_s)) = (self.quiet_s, self.interval_s) else {
            return false;
        };
        self.reporting >= DEAF_HOSTS && quiet_s > 2.0 * interval_s
    }

    fn mass(&self) -> i64 {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "hosts")]
        let share = ((self.reporting + self.silent) as f64 * MASS_SHARE) as i64;
        share.max(MASS_HOSTS)
    }
}

impl Store {
    /// One round.
    pub async fn sweep_silence(&self) -> Result<Swept, StoreError> {
        self.try_sweep().await.map_err(StoreError::of("sweep_silence"))
    }

    async fn try_sweep(&self) -> Result<Swept, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // A replica that is frozen in here must not keep the others out.
        sqlx::query!(
            "-- Store::sweep_silence.limits
            select set_config('idle_in_transaction_session_timeout', '15s', true) as idle,
                set_config('statement_timeout', '30s', true) as statement"
        )
        .fetch_one(&mut *transaction)
        .await?;
        let Some(fleet) = look(&mut transaction).await? else { return Ok(Swept::default()) };
        let mut swept = Swept { ran: true, deaf: fleet.is_deaf(), ..Swept::default() };
        let mut new = Vec::new();
        if let Some(gap_s) = fleet.gap_s {
            swept.gap = true;
            move_deadlines(&mut transaction, gap_s + GRACE_S).await?;
            if gap_s >= TOLD_GAP_S {
                let event =
                    NewAlert::of_fleet("observation_gap", "warning", json!({ "gap_s": gap_s }));
                let opened = open_alerts(&mut transaction, &[event], 0.0).await?;
                resolve_alerts(&mut transaction, &opened).await?;
                swept.opened += opened.len();
            }
        } else if fleet.is_deaf() {
            let detail = json!({ "hosts": fleet.reporting, "quiet_s": fleet.quiet_s });
            new.push(NewAlert::of_fleet("no_reports", "critical", detail));
        } else if fleet.was_deaf {
            move_deadlines(&mut transaction, GRACE_S).await?;
            swept.resolved += resolve_fleet(&mut transaction, "no_reports").await?;
        } else {
            new = due_hosts(&mut transaction).await?;
        }
        swept.resolved += recovered(&mut transaction).await?;
        swept.opened += tell(&mut transaction, &fleet, &new).await?;
        if !fleet.is_deaf() {
            let (opened, resolved) = endpoints::judge(&mut transaction, fleet.reporting).await?;
            swept.opened += opened;
            swept.resolved += resolved;
        }
        repeats::expire_acknowledgements(&mut transaction).await?;
        repeats::renotify(&mut transaction).await?;
        sqlx::query!(
            "-- Store::sweep_silence.done
            update alert_sweep set last_ok_at = now(),
                deaf_since = case when $1 then coalesce(deaf_since, now()) end",
            fleet.is_deaf()
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(swept)
    }
}

/// Locks the round and counts. None: another replica is at it.
async fn look(transaction: &mut sqlx::PgTransaction<'_>) -> Result<Option<Fleet>, sqlx::Error> {
    let round = sqlx::query!(
        r#"-- Store::sweep_silence.lock
        select now() as "now!", deaf_since is not null as "was_deaf!",
            extract(epoch from now() - last_ok_at)::float8 as since_s
        from alert_sweep for update skip locked"#
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(round) = round else { return Ok(None) };
    let counts = sqlx::query!(
        r#"-- Store::sweep_silence.count
        with silent as (
            select host_id, fired_at from alerts where rule = 'host_silent' and resolved_at is null)
        select count(*) filter (where s.host_id is null) as "reporting!",
            count(s.host_id) as "silent!",
            count(*) filter (where s.fired_at > now() - interval '1 minute') as "newly_silent!",
            extract(epoch from now() - max(greatest(b.last_seen_at, b.contacted_at)))::float8 as quiet_s,
            (percentile_disc(0.5) within group (order by b.interval_ms) / 1000.0)::float8 as interval_s
        from heartbeats b join hosts h using (host_id) left join silent s using (host_id)
        where h.lifecycle = 'active' and b.last_seen_at is not null"#
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(Some(Fleet {
        now: round.now,
        // Without a last time there is none to compare with: the first round ever judges deadlines as they are.
        gap_s: round.since_s.filter(|since_s| *since_s > GAP_S),
        was_deaf: round.was_deaf,
        reporting: counts.reporting,
        silent: counts.silent,
        newly_silent: counts.newly_silent,
        quiet_s: counts.quiet_s,
        interval_s: counts.interval_s,
    }))
}

/// Gives every host that is not known to be silent at least `by_s` from now, and its own deadline's
/// distance.
async fn move_deadlines(
    transaction: &mut sqlx::PgTransaction<'_>,
    by_s: f64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::sweep_silence.move
        update heartbeats b set deadline_at = greatest(
            deadline_at + $1 * interval '1 s',
            procfleet_deadline(now(), interval_ms) + interval '45 s')
        where deadline_at is not null and not exists (select from alerts a
            where a.host_id = b.host_id and a.rule = 'host_silent' and a.resolved_at is null)",
        by_s
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Hosts whose condition holds and is no alert yet.
async fn due_hosts(
    transaction: &mut sqlx::PgTransaction<'_>,
) -> Result<Vec<NewAlert>, sqlx::Error> {
    let due = sqlx::query!(
        r#"-- Store::sweep_silence.due
        with conditions as (
            select b.host_id, b.last_seen_at, b.interval_ms, null::float8 as ahead_s,
                'host_silent' as rule, 'critical' as severity, b.deadline_at as began_at
            from heartbeats b
            where b.deadline_at < now() and coalesce(b.goodbye, '') not in ('shutdown', 'uninstall')
            union all
            select b.host_id, null, null, null, 'host_never_reported', 'warning', h.enrolled_at
            from heartbeats b join hosts h using (host_id)
            where b.last_seen_at is null and h.enrolled_at < now() - interval '10 minutes'
                and (h.lifecycle_changed_at < now() - interval '20 minutes' or h.lifecycle_changed_at <= h.enrolled_at)
            union all
            select b.host_id, b.last_seen_at, b.interval_ms,
                coalesce(b.clock_offset_ms / -1000.0, extract(epoch from b.last_sampled_at - b.last_seen_at))::float8,
                case when b.clock_offset_ms > 0 then 'host_clock_behind' else 'host_clock_ahead' end, 'warning', now()
            from heartbeats b
            where b.last_sampled_at > b.last_seen_at + interval '30 s' or b.clock_offset_ms is not null
            union all
            select c.host_id, null, null, null, 'host_clone_detected', 'warning', c.detected_at
            from clone_conflicts c where c.detected_at is not null and c.seen_at > now() - interval '1 hour'
            union all
            select h.host_id, null, null, null, 'host_enrolls_too_often', 'warning', h.enrollment_refused_at
            from hosts h where h.enrollment_refused_at > now() - interval '1 hour')
        select c.host_id as "host_id!", c.rule as "rule!", c.severity as "severity!",
            c.began_at as "began_at!", c.last_seen_at, c.interval_ms, c.ahead_s
        from conditions c join hosts h using (host_id)
        where h.lifecycle = 'active' and (not h.ephemeral or c.rule not in ('host_silent', 'host_never_reported'))
          and not exists (select from alerts a
              where a.fingerprint = c.rule || ':' || c.host_id and a.resolved_at is null)
        order by c.began_at, c.host_id limit $1"#,
        MAX_OPENED
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(due
        .into_iter()
        .map(|row| NewAlert {
            fingerprint: format!("{}:{}", row.rule, row.host_id),
            rule: row.rule,
            rule_id: None,
            severity: row.severity,
            host_id: Some(row.host_id),
            began_at: Some(row.began_at),
            detail: json!({
                "last_seen_at": row.last_seen_at.and_then(rfc3339),
                "interval_ms": row.interval_ms,
                "ahead_s": row.ahead_s,
            }),
        })
        .collect())
}

fn rfc3339(at: OffsetDateTime) -> Option<String> {
    at.format(&time::format_description::well_known::Rfc3339).ok()
}

/// Opens `new`, and the alert about their mass.
async fn tell(
    transaction: &mut sqlx::PgTransaction<'_>,
    fleet: &Fleet,
    new: &[NewAlert],
) -> Result<usize, sqlx::Error> {
    let silent = new.iter().filter(|alert| alert.rule == "host_silent").count();
    let newly = fleet.newly_silent + i64::try_from(silent).unwrap_or(i64::MAX);
    let is_open = sqlx::query_scalar!(
        r#"-- Store::sweep_silence.mass_is_open
        select exists (select from alerts where fingerprint = 'mass_silence' and resolved_at is null) as "open!""#
    )
    .fetch_one(&mut **transaction)
    .await?;
    let is_mass = is_open || newly >= fleet.mass();
    let mut opened = open_alerts(transaction, new, if is_mass { 120.0 } else { 0.0 }).await?.len();
    if is_mass && !is_open {
        let labels = silent_labels(transaction).await?;
        let detail =
            json!({ "silent": newly, "hosts": fleet.reporting + fleet.silent, "labels": labels });
        let mass = NewAlert::of_fleet("mass_silence", "critical", detail);
        opened += open_alerts(transaction, &[mass], 0.0).await?.len();
        hold_singles(transaction).await?;
    } else if is_open && fleet.silent < fleet.mass() / 2 && silent == 0 {
        resolve_fleet(transaction, "mass_silence").await?;
    }
    tracing::debug!(at = %fleet.now, opened, "swept");
    Ok(opened)
}

/// What was queued about single hosts a moment ago waits for the digest.
async fn hold_singles(transaction: &mut sqlx::PgTransaction<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- Store::sweep_silence.hold
        update notifications n set next_at = greatest(n.next_at, now() + interval '2 minutes')
        from alerts a
        where a.alert_id = n.alert_id and a.rule = 'host_silent' and a.resolved_at is null
          and n.state = 'queued' and n.attempts = 0"
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The labels that most silent hosts share: `name=value` and how many.
async fn silent_labels(
    transaction: &mut sqlx::PgTransaction<'_>,
) -> Result<serde_json::Value, sqlx::Error> {
    let labels = sqlx::query!(
        r#"-- Store::sweep_silence.labels
        select l.key || '=' || l.value as "label!", count(*) as "hosts!"
        from alerts a join hosts h using (host_id), jsonb_each_text(h.labels) l
        where a.rule = 'host_silent' and a.resolved_at is null
        group by l.key, l.value order by count(*) desc, 1 limit 5"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(labels.into_iter().map(|l| json!({ "label": l.label, "hosts": l.hosts })).collect())
}

/// Ends alerts of hosts whose condition is gone: for silence after a minute of contact with at least
/// two reports in it.
async fn recovered(transaction: &mut sqlx::PgTransaction<'_>) -> Result<usize, sqlx::Error> {
    sqlx::query!(
        "-- Store::sweep_silence.recovering
        update alerts a set recovering_since = case when b.deadline_at > now() and b.last_seen_at > a.fired_at
            then now() end
        from heartbeats b
        where a.rule = 'host_silent' and a.resolved_at is null and b.host_id = a.host_id
          and (b.deadline_at > now() and b.last_seen_at > a.fired_at) <> (a.recovering_since is not null)"
    )
    .execute(&mut **transaction)
    .await?;
    let over = sqlx::query_scalar!(
        "-- Store::sweep_silence.over
        select a.alert_id from alerts a join hosts h using (host_id) join heartbeats b using (host_id)
        where a.resolved_at is null and (h.lifecycle <> 'active' or case a.rule
            when 'host_silent' then a.recovering_since <= now() - interval '1 minute'
                and b.last_seen_at > a.recovering_since
            when 'host_never_reported' then b.last_seen_at is not null
            when 'host_clock_ahead' then b.last_sampled_at < b.last_seen_at + interval '15 s'
                and coalesce(b.clock_offset_ms, 0) >= 0
            when 'host_clock_behind' then coalesce(b.clock_offset_ms, 0) <= 0
            when 'host_clone_detected' then not exists (select from clone_conflicts c where c.host_id = a.host_id
                and c.detected_at is not null and c.seen_at > now() - interval '1 hour')
            when 'host_enrolls_too_often' then coalesce(h.enrollment_refused_at < now() - interval '1 hour', true)
            else false end)
        limit $1",
        MAX_OPENED
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &over).await?;
    Ok(over.len())
}

async fn resolve_fleet(
    transaction: &mut sqlx::PgTransaction<'_>,
    rule: &str,
) -> Result<usize, sqlx::Error> {
    let open = sqlx::query_scalar!(
        "-- Store::sweep_silence.resolve_fleet
        select alert_id from alerts where fingerprint = $1 and resolved_at is null",
        rule
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &open).await?;
    Ok(open.len())
}
