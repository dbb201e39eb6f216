//! A round of judging: some hosts that reported since they were judged last, locked, so that replicas
//! share the hosts; what they reported; and at its end, in the same transaction, how far they are
//! judged, what is pending, and the alerts that began or ended.
//!
//! Samples are read once. A report that comes late and is older than what was judged is not judged.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Rule;
use super::observations::{Observed, Source, Span, observe};
use crate::store::labels::Labels;
use crate::store::silence::{NewAlert, open_alerts, resolve_alerts};
use crate::store::{Store, StoreError};

/// Most hosts of one round.
const MAX_HOSTS: i64 = 500;
/// Most reports of one host in one round: one that was away has more, and takes several rounds.
const MAX_TICKS: usize = 120;
/// Most open alerts of one rule: a rule that means everything is the rule's fault.
pub const MAX_OPEN: usize = 1000;

/// A host to be judged.
#[derive(Clone, Debug)]
pub struct JudgedHost {
    /// Its id.
    pub host_id: Uuid,
    /// Its labels.
    pub labels: Labels,
    /// What its agent had counted as lost at the last report judged; none: not known.
    pub lost_reports: Option<i64>,
}

/// What is known of a condition that holds, or held a moment ago. See the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// First sample of the condition.
    pub began_at: OffsetDateTime,
    /// Newest sample of the object.
    pub last_at: OffsetDateTime,
    /// Whether there is an alert.
    pub firing: bool,
    /// Since when samples lie on the good side.
    pub calm_since: Option<OffsetDateTime>,
}

/// Of a host: by rule and object.
pub type Phases = BTreeMap<(Uuid, String), Phase>;

/// An alert that begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// By which rule.
    pub rule_id: Uuid,
    /// On which host.
    pub host_id: Uuid,
    /// Key of the object; empty: the host.
    pub object: String,
    /// What the object is called; none: not known any more.
    pub title: Option<String>,
    /// Whether it begins.
    pub fires: bool,
    /// First sample of the condition.
    pub began_at: OffsetDateTime,
    /// The sample that made it.
    pub at: OffsetDateTime,
    /// Its value; none: the object is gone.
    pub value: Option<f64>,
}

/// A round under way.
pub struct RuleRound {
    transaction: sqlx::PgTransaction<'static>,
    /// Rules that are enabled.
    pub rules: Vec<Rule>,
    /// Hosts to be judged.
    pub hosts: Vec<JudgedHost>,
    /// What is pending or firing on them.
    pub phases: HashMap<Uuid, Phases>,
    /// What they reported.
    pub observed: Observed,
    ends: HashMap<Uuid, OffsetDateTime>,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Judgement {
    /// What the agents had counted as lost, by host.
    pub lost_reports: HashMap<Uuid, Option<i64>>,
    /// What is pending or firing, by host.
    pub phases: HashMap<Uuid, Phases>,
    /// In the order of each object's samples.
    pub turns: Vec<Turn>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Alerts opened.
    pub opened: usize,
    /// Alerts that are over.
    pub resolved: usize,
    /// Alerts not opened, because their rule has [`MAX_OPEN`].
    pub shed: usize,
}

impl Store {
    /// Begins a round over the hosts that wait longest. None: nobody reported since the last one.
    /// `sources` says which tables these rules need.
    pub async fn begin_rule_round(
        &self,
        sources: fn(&[Rule]) -> Vec<Source>,
    ) -> Result<Option<RuleRound>, StoreError> {
        self.try_begin_round(sources).await.map_err(StoreError::of("begin_rule_round"))
    }

    async fn try_begin_round(
        &self,
        sources: fn(&[Rule]) -> Vec<Source>,
    ) -> Result<Option<RuleRound>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        limit(&mut transaction).await?;
        admit(&mut transaction).await?;
        let claimed = claim(&mut transaction).await?;
        if claimed.is_empty() {
            transaction.commit().await?;
            return Ok(None);
        }
        // Nobody replaces a rule while it is judged by.
        sqlx::query!("-- begin_rule_round.rules\nselect rule_id from rules for share")
            .fetch_all(&mut *transaction)
            .await?;
        let mut rules = super::read(&mut transaction).await?;
        rules.retain(|rule| rule.enabled);
        let spans = claimed.iter().map(|c| c.span).collect();
        let mut ends: HashMap<_, _> = claimed.iter().map(|c| (c.span.host_id, c.span.to)).collect();
        let observed = if rules.is_empty() {
            Observed::default()
        } else {
            observe(&mut transaction, spans, &sources(&rules), MAX_TICKS).await?
        };
        for (host_id, ticks) in &observed.ticks {
            if let (Some(last), true) = (ticks.last(), ticks.len() >= MAX_TICKS) {
                ends.insert(*host_id, last.sampled_at);
            }
        }
        let hosts: Vec<JudgedHost> = claimed.into_iter().map(|c| c.host).collect();
        let phases = read_phases(&mut transaction, &hosts).await?;
        Ok(Some(RuleRound { transaction, rules, hosts, phases, observed, ends }))
    }
}

impl RuleRound {
    /// Ends the round: all of it is written, or nothing.
    pub async fn commit(self, judgement: Judgement) -> Result<Judged, StoreError> {
        self.try_commit(judgement).await.map_err(StoreError::of("commit_rule_round"))
    }

    async fn try_commit(mut self, mut judgement: Judgement) -> Result<Judged, sqlx::Error> {
        let transaction = &mut self.transaction;
        let mut judged = Judged::default();
        shed(transaction, &self.rules, &mut judgement, &mut judged).await?;
        for wave in waves(judgement.turns) {
            let (fired, over): (Vec<Turn>, Vec<Turn>) = wave.into_iter().partition(|t| t.fires);
            let new: Vec<NewAlert> =
                fired.iter().filter_map(|turn| new_alert(turn, &self.rules)).collect();
            judged.opened += open_alerts(transaction, &new, 0.0).await?.len();
            judged.resolved += end_alerts(transaction, &over).await?;
        }
        write_phases(transaction, &self.hosts, &judgement.phases).await?;
        let hosts: Vec<Uuid> = self.hosts.iter().map(|host| host.host_id).collect();
        let ends: Vec<OffsetDateTime> = hosts.iter().map(|host| self.ends[host]).collect();
        let lost: Vec<Option<i64>> =
            hosts.iter().map(|host| judgement.lost_reports.get(host).copied().flatten()).collect();
        sqlx::query!(
            "-- commit_rule_round.progress
            update rule_progress p set evaluated_to = d.evaluated_to,
                lost_reports = coalesce(d.lost_reports, p.lost_reports)
            from unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) as d (host_id, evaluated_to, lost_reports)
            where p.host_id = d.host_id",
            &hosts,
            &ends,
            &lost as _,
        )
        .execute(&mut **transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(judged)
    }
}

/// A replica that is frozen in a round must not keep its hosts from being judged.
async fn limit(transaction: &mut sqlx::PgTransaction<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- begin_rule_round.limits
        select set_config('idle_in_transaction_session_timeout', '15s', true) as idle,
            set_config('statement_timeout', '30s', true) as statement"
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(())
}

/// Hosts never seen here begin with the samples that come next.
async fn admit(transaction: &mut sqlx::PgTransaction<'_>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- begin_rule_round.admit
        insert into rule_progress (host_id, evaluated_to)
        select b.host_id, b.last_sampled_at from heartbeats b
        where b.last_sampled_at is not null
          and not exists (select from rule_progress p where p.host_id = b.host_id)
        order by b.host_id limit $1 on conflict do nothing",
        10 * MAX_HOSTS
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

struct Claimed {
    host: JudgedHost,
    span: Span,
}

/// Locks hosts with reports not judged. One whose clock was set back begins at its new time.
async fn claim(transaction: &mut sqlx::PgTransaction<'_>) -> Result<Vec<Claimed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- begin_rule_round.claim
        select p.host_id, least(p.evaluated_to, b.last_sampled_at - interval '1 ms') as "after!",
            b.last_sampled_at as "upto!", h.labels as "labels: Json<Labels>", p.lost_reports
        from rule_progress p join heartbeats b using (host_id) join hosts h using (host_id)
        where h.lifecycle = 'active' and (b.last_sampled_at > p.evaluated_to
            or b.last_sampled_at < p.evaluated_to - interval '1 minute')
        order by p.evaluated_to limit $1 for update of p skip locked"#,
        MAX_HOSTS
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claimed {
            span: Span { host_id: row.host_id, after: row.after, to: row.upto },
            host: JudgedHost {
                host_id: row.host_id,
                labels: row.labels.0,
                lost_reports: row.lost_reports,
            },
        })
        .collect())
}

async fn read_phases(
    transaction: &mut sqlx::PgTransaction<'_>,
    hosts: &[JudgedHost],
) -> Result<HashMap<Uuid, Phases>, sqlx::Error> {
    let hosts: Vec<Uuid> = hosts.iter().map(|host| host.host_id).collect();
    let rows = sqlx::query!(
        "-- begin_rule_round.phases
        select rule_id, host_id, object, began_at, last_at, firing, calm_since
        from rule_states where host_id = any($1)",
        &hosts
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut phases: HashMap<Uuid, Phases> = HashMap::new();
    for row in rows {
        let phase = Phase {
            began_at: row.began_at,
            last_at: row.last_at,
            firing: row.firing,
            calm_since: row.calm_since,
        };
        phases.entry(row.host_id).or_default().insert((row.rule_id, row.object), phase);
    }
    Ok(phases)
}

/// What is pending is little: it is written anew.
async fn write_phases(
    transaction: &mut sqlx::PgTransaction<'_>,
    hosts: &[JudgedHost],
    phases: &HashMap<Uuid, Phases>,
) -> Result<(), sqlx::Error> {
    let judged: Vec<Uuid> = hosts.iter().map(|host| host.host_id).collect();
    sqlx::query!(
        "-- commit_rule_round.forget
        delete from rule_states where host_id = any($1)
            and rule_id in (select rule_id from rules where enabled)",
        &judged
    )
    .execute(&mut **transaction)
    .await?;
    let rows: Vec<(&Uuid, &(Uuid, String), &Phase)> = phases
        .iter()
        .flat_map(|(host, phases)| phases.iter().map(move |(key, phase)| (host, key, phase)))
        .collect();
    sqlx::query!(
        "-- commit_rule_round.phases
        insert into rule_states (host_id, rule_id, object, began_at, last_at, firing, calm_since)
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::timestamptz[],
            $6::boolean[], $7::timestamptz[])
        on conflict do nothing",
        &rows.iter().map(|row| *row.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.1.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.1.1.as_str()).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.2.began_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.2.last_at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.2.firing).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.2.calm_since).collect::<Vec<_>>() as _,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Turns back what would open more than [`MAX_OPEN`] alerts of a rule: it stays pending.
async fn shed(
    transaction: &mut sqlx::PgTransaction<'_>,
    rules: &[Rule],
    judgement: &mut Judgement,
    judged: &mut Judged,
) -> Result<(), sqlx::Error> {
    if !judgement.turns.iter().any(|turn| turn.fires) {
        return Ok(());
    }
    let ids: Vec<Uuid> = rules.iter().map(|rule| rule.rule_id).collect();
    let open = sqlx::query!(
        r#"-- commit_rule_round.open
        select rule_id as "rule_id!", count(*) as "open!" from alerts
        where rule_id = any($1) and resolved_at is null group by rule_id"#,
        &ids
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut open: HashMap<Uuid, usize> = open
        .into_iter()
        .map(|row| (row.rule_id, usize::try_from(row.open).unwrap_or(usize::MAX)))
        .collect();
    judgement.turns.retain(|turn| {
        let open = open.entry(turn.rule_id).or_default();
        if !turn.fires || *open < MAX_OPEN {
            *open += usize::from(turn.fires);
            return true;
        }
        judged.shed += 1;
        let phases = judgement.phases.get_mut(&turn.host_id);
        let key = (turn.rule_id, turn.object.clone());
        if let Some(phase) = phases.and_then(|phases| phases.get_mut(&key)) {
            (phase.firing, phase.calm_since) = (false, None);
        }
        false
    });
    Ok(())
}

/// An object that turns several times in one round turns once in each wave.
fn waves(turns: Vec<Turn>) -> Vec<Vec<Turn>> {
    let (mut waves, mut seen): (Vec<Vec<Turn>>, HashMap<String, usize>) = Default::default();
    for turn in turns {
        let wave = seen.entry(fingerprint(&turn)).or_default();
        // A beginning and its end may share a wave's place: begins are written before ends.
        let at = *wave;
        *wave += 1;
        if waves.len() <= at {
            waves.push(Vec::new());
        }
        waves[at].push(turn);
    }
    waves
}

fn fingerprint(turn: &Turn) -> String {
    format!("rule:{}:{}:{}", turn.rule_id, turn.host_id, turn.object)
}

fn new_alert(turn: &Turn, rules: &[Rule]) -> Option<NewAlert> {
    let rule = rules.iter().find(|rule| rule.rule_id == turn.rule_id)?;
    Some(NewAlert {
        fingerprint: fingerprint(turn),
        rule: rule.name.clone(),
        rule_id: Some(rule.rule_id),
        severity: rule.severity.clone(),
        host_id: Some(turn.host_id),
        began_at: Some(turn.began_at),
        detail: detail(turn, rule),
    })
}

fn detail(turn: &Turn, rule: &Rule) -> Value {
    json!({
        "metric": rule.metric, "below": rule.below, "threshold": rule.threshold, "for_s": rule.for_s,
        "value": turn.value, "sampled_at": turn.at.format(&Rfc3339).ok(),
        "object": turn.title.as_deref().map(|title| title.chars().take(300).collect::<String>()),
        "process_id": rule.metric.starts_with("process.").then_some(&turn.object).filter(|o| !o.is_empty()),
    })
}

async fn end_alerts(
    transaction: &mut sqlx::PgTransaction<'_>,
    over: &[Turn],
) -> Result<usize, sqlx::Error> {
    if over.is_empty() {
        return Ok(0);
    }
    let fingerprints: Vec<String> = over.iter().map(fingerprint).collect();
    let ends: Vec<Option<String>> = over.iter().map(|turn| turn.at.format(&Rfc3339).ok()).collect();
    let ids = sqlx::query_scalar!(
        "-- commit_rule_round.end
        update alerts a set detail = a.detail || jsonb_build_object('ended_at', o.ended_at)
        from unnest($1::text[], $2::text[]) as o (fingerprint, ended_at)
        where a.fingerprint = o.fingerprint and a.resolved_at is null
        returning a.alert_id",
        &fingerprints,
        &ends as _,
    )
    .fetch_all(&mut **transaction)
    .await?;
    resolve_alerts(transaction, &ids).await?;
    Ok(ids.len())
}
