//! A round of a server over the rollouts that something is to be done about: read, decided elsewhere, and written in one
//! transaction.
//!
//! Every server does it; whoever holds the lock of a rollout's row works on it, the others pass by. While none is open, the
//! newest that is done serves hosts that came later. What was stopped is looked at for an hour more, for what becomes of
//! the hosts that were under way. All times are the database's.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Decision, Rollout, RolloutHost, RolloutState, Started, parse_word};
use crate::store::audit::{Actor, record};
use crate::store::{Store, StoreError};

/// How old the last sweep over the fleet may be, s: without one nobody knows who is silent.
const SWEPT_S: f64 = 20.0;

/// A round under way.
pub struct RolloutRound {
    transaction: sqlx::PgTransaction<'static>,
    /// When it began.
    pub now: OffsetDateTime,
    /// Whether the servers know which hosts are silent.
    pub watched: bool,
    /// Rollouts that are locked for it, oldest first.
    pub rollouts: Vec<Rollout>,
}

impl Store {
    /// Begins a round over rollouts that nobody looked at for `pause_s`. None: there is nothing to do.
    pub async fn begin_rollout_round(
        &self,
        pause_s: f64,
    ) -> Result<Option<RolloutRound>, StoreError> {
        self.try_begin_rollouts(pause_s).await.map_err(StoreError::of("begin_rollout_round"))
    }

    async fn try_begin_rollouts(&self, pause_s: f64) -> Result<Option<RolloutRound>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // A server that is frozen in here must not keep the others out.
        let begun = sqlx::query!(
            r#"-- Store::begin_rollout_round
            select now() as "now!", set_config('idle_in_transaction_session_timeout', '15s', true) as idle,
                set_config('statement_timeout', '30s', true) as statement,
                exists (select from alert_sweep where last_ok_at > now() - make_interval(secs => $1)
                    and deaf_since is null) as "watched!""#,
            SWEPT_S
        )
        .fetch_one(&mut *transaction)
        .await?;
        let rows = sqlx::query!(
            r#"-- Store::begin_rollout_round.lock
            select rollout_id, target_seq, state, percent, canary_count, max_in_flight,
                extract(epoch from soak)::float8 as "soak_s!", advance, step_entered_at, reason
            from rollouts r
            where worked_at <= now() - make_interval(secs => $1) and (
                state in ('canary', 'rolling', 'paused')
                or state in ('halted', 'cancelled') and step_entered_at > now() - interval '1 hour'
                or state = 'done'
                    and not exists (select from rollouts where state in ('canary', 'rolling', 'paused'))
                    and not exists (select from rollouts o where o.state = 'done'
                        and (o.created_at, o.rollout_id) > (r.created_at, r.rollout_id)))
            order by created_at, rollout_id for update skip locked"#,
            pause_s
        )
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let rollouts = rows.into_iter().map(|row| {
            Ok(Rollout {
                rollout_id: row.rollout_id,
                target_seq: row.target_seq,
                state: parse_word(&row.state)?,
                percent: row.percent,
                canary_count: row.canary_count.unsigned_abs() as usize,
                max_in_flight: row.max_in_flight.unsigned_abs() as usize,
                soak: time::Duration::seconds_f64(row.soak_s),
                advance: row.advance,
                step_entered_at: row.step_entered_at,
                reason: row.reason,
            })
        });
        let rollouts = rollouts.collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(RolloutRound { transaction, now: begun.now, watched: begun.watched, rollouts }))
    }
}

impl RolloutRound {
    /// Hosts that a rollout started, or may start.
    pub async fn hosts(&mut self, rollout: &Rollout) -> Result<Vec<RolloutHost>, StoreError> {
        self.read_hosts(rollout).await.map_err(StoreError::of("rollout_hosts"))
    }

    async fn read_hosts(&mut self, rollout: &Rollout) -> Result<Vec<RolloutHost>, sqlx::Error> {
        // Who has it and who cannot have it is the most part of a fleet in the end, and is left out.
        let rows = sqlx::query!(
            r#"-- RolloutRound::hosts
            select r.host_id, b.deadline_at as "deadline_at?", r.installed_seq, r.state, r.target_seq, r.reason,
                r.changed_at, h.lifecycle <> 'active' or coalesce(b.goodbye, '') in ('shutdown', 'uninstall') as "is_gone!",
                r.pinned_seq is not null as "is_pinned!",
                not $3 or procfleet_selects(h.labels, o.canary_requirements) as "is_selected!",
                s.started_at as "started_at?", s.is_canary as "is_canary?", s.outcome as "outcome?"
            from rollouts o cross join host_releases r join hosts h using (host_id) left join heartbeats b using (host_id)
                left join rollout_hosts s on s.rollout_id = $1 and s.host_id = r.host_id
            where o.rollout_id = $1 and case
                when s.host_id is not null then $4 or s.outcome is null or s.outcome in ('failed', 'lost')
                else r.state <> 'off' and r.pinned_seq is null and h.lifecycle = 'active' and b.deadline_at > now()
                    and case when $4 then r.installed_seq is distinct from $2
                        else r.installed_seq is null or r.installed_seq < $2 end end"#,
            rollout.rollout_id,
            rollout.target_seq,
            rollout.percent == 0,
            rollout.state != RolloutState::Done,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let hosts = rows.into_iter().map(|row| {
            let outcome = row.outcome.as_deref().map(parse_word).transpose()?;
            let is_canary = row.is_canary.unwrap_or_default();
            Ok(RolloutHost {
                host_id: row.host_id,
                deadline_at: row.deadline_at,
                is_gone: row.is_gone,
                is_pinned: row.is_pinned,
                is_selected: row.is_selected,
                installed_seq: row.installed_seq,
                state: row.state.as_deref().map(parse_word).transpose()?,
                tried_seq: row.target_seq,
                reason: row.reason,
                changed_at: row.changed_at,
                started: row.started_at.map(|at| Started { at, is_canary, outcome }),
            })
        });
        hosts.collect()
    }

    /// Writes what was decided.
    pub async fn apply(
        &mut self,
        rollout: &Rollout,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        self.write(rollout, decision).await.map_err(StoreError::of("apply_rollout"))
    }

    async fn write(&mut self, rollout: &Rollout, decision: &Decision) -> Result<(), sqlx::Error> {
        self.settle(rollout, decision).await?;
        self.withdraw(rollout, &decision.withdraw).await?;
        if decision.state == RolloutState::Halted && rollout.state != RolloutState::Halted {
            stop_hosts(&mut self.transaction, rollout.rollout_id).await?;
        }
        self.start(rollout, decision).await?;
        let is_step = (decision.state, decision.percent) != (rollout.state, rollout.percent);
        sqlx::query!(
            "-- RolloutRound::apply
            update rollouts set state = $2, percent = $3, reason = $4, worked_at = now(),
                step_entered_at = case when $5 then now() else step_entered_at end, advance = advance and not $5
            where rollout_id = $1",
            rollout.rollout_id,
            decision.state.as_str(),
            decision.percent,
            decision.reason,
            is_step,
        )
        .execute(&mut *self.transaction)
        .await?;
        if is_step {
            let action = match decision.state {
                RolloutState::Halted => "rollout.halt",
                RolloutState::Done => "rollout.done",
                _ => "rollout.step",
            };
            let detail = serde_json::json!({
                "target_seq": rollout.target_seq, "percent": decision.percent, "reason": decision.reason,
            });
            let object = rollout.rollout_id.to_string();
            let of = ("rollout", object.as_str());
            record(&mut self.transaction, &Actor::server(), action, of, detail).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, rollout: &Rollout, decision: &Decision) -> Result<(), sqlx::Error> {
        if decision.settle.is_empty() {
            return Ok(());
        }
        let of = || decision.settle.iter();
        let hosts: Vec<Uuid> = of().map(|settled| settled.host_id).collect();
        let outcomes: Vec<_> = of().map(|settled| settled.outcome.as_str()).collect();
        let reasons: Vec<_> = of().map(|settled| settled.reason.as_deref()).collect();
        sqlx::query!(
            "-- RolloutRound::settle
            update rollout_hosts s set outcome = t.outcome, settled_at = now(), reason = t.reason
            from unnest($2::uuid[], $3::text[], $4::text[]) as t (host_id, outcome, reason)
            where s.rollout_id = $1 and s.host_id = t.host_id",
            rollout.rollout_id,
            &hosts,
            &outcomes as _,
            &reasons as _,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// They are no part of it any more: nobody tells them either, until they are started anew.
    async fn withdraw(&mut self, rollout: &Rollout, hosts: &[Uuid]) -> Result<(), sqlx::Error> {
        if hosts.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "-- RolloutRound::withdraw
            with locked as (
                select host_id from host_releases
                where host_id = any ($2) and pinned_seq is null and desired_seq = $3
                order by host_id for update),
            untold as (
                update host_releases r set desired_seq = null from locked where r.host_id = locked.host_id)
            delete from rollout_hosts where rollout_id = $1 and host_id = any ($2)",
            rollout.rollout_id,
            hosts,
            rollout.target_seq,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn start(&mut self, rollout: &Rollout, decision: &Decision) -> Result<(), sqlx::Error> {
        if decision.start.is_empty() {
            return Ok(());
        }
        // Whom an operator pinned a moment ago is left out of both.
        sqlx::query!(
            "-- RolloutRound::start
            with locked as (
                select host_id from host_releases
                where host_id = any ($2) and pinned_seq is null order by host_id for update),
            told as (
                update host_releases r set desired_seq = $3 from locked where r.host_id = locked.host_id
                returning r.host_id)
            insert into rollout_hosts (rollout_id, host_id, is_canary)
            select $1, host_id, $4 from told on conflict do nothing",
            rollout.rollout_id,
            &decision.start,
            rollout.target_seq,
            decision.percent == 0,
        )
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Ends the round.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(StoreError::of("commit_rollouts"))
    }
}

/// Takes a release back from hosts that a rollout started and that do not run it. Whoever runs it keeps it.
pub(super) async fn stop_hosts(
    connection: &mut sqlx::PgConnection,
    rollout_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- RolloutRound::stop
        with locked as (
            select r.host_id from host_releases r
                join rollout_hosts s on s.rollout_id = $1 and s.host_id = r.host_id
                join rollouts o on o.rollout_id = $1
            where r.pinned_seq is null and r.desired_seq = o.target_seq
                and r.installed_seq is distinct from o.target_seq
                and not (coalesce(r.state, '') = 'probation' and coalesce(r.target_seq = o.target_seq, false))
            order by r.host_id for update of r)
        update host_releases r set desired_seq = null from locked where r.host_id = locked.host_id",
        rollout_id
    )
    .execute(connection)
    .await?;
    Ok(())
}
