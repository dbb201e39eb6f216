//! Judges what a host reported by every rule that means it.

use std::collections::BTreeSet;

use super::condition::{Change, Condition, missing};
use super::metric::Metric;
use crate::selector::Selector;
use crate::store::labels::Labels;
use crate::store::rules::Rule;
use crate::store::rules::observations::{Observed, Row, Source, Tick};
use crate::store::rules::round::{JudgedHost, Phase, Phases, Turn};

/// A rule, read.
pub struct Ready {
    rule: Rule,
    metric: Metric,
    condition: Condition,
    selector: Selector,
}

/// What a report says of one object.
struct Said<'a> {
    object: &'a str,
    title: Option<&'a str>,
    value: Option<f64>,
}

impl Ready {
    /// None: a metric or selector that this server does not know.
    pub fn new(rule: &Rule) -> Option<Self> {
        let selector = match rule.selector.as_str() {
            "" => Selector::default(),
            text => Selector::parse(text).ok()?,
        };
        let (metric, condition) = (Metric::parse(&rule.metric)?, Condition::of(rule));
        Some(Self { rule: rule.clone(), metric, condition, selector })
    }

    /// Whether it means a host with these labels.
    pub fn means_host(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
    }

    /// What `tick` says; none: nothing is known of any object.
    fn said<'a>(
        &self,
        tick: &'a Tick,
        observed: &'a Observed,
        newly_lost: Option<f64>,
    ) -> Option<Vec<Said<'a>>> {
        let source = self.metric.source();
        let of_host = |value| Some(vec![Said { object: "", title: None, value }]);
        if source == Source::Host {
            let value = match self.metric.place() {
                Some(place) => tick.values.get(place).copied().flatten(),
                None => newly_lost,
            };
            return of_host(value);
        }
        if source.is_of_processes() && !tick.has("process") {
            return None;
        }
        let rows = observed.rows.get(&(tick.host_id, tick.sampled_at, source));
        let rows = rows.map(Vec::as_slice).unwrap_or_default().iter();
        let meant = rows.filter(|row| self.means(row));
        let place = self.metric.place().unwrap_or_default();
        let value = |row: &Row| row.values.get(place).copied().flatten();
        if !self.metric.is_per_object() {
            return of_host(Some(meant.filter_map(value).sum()));
        }
        Some(
            meant
                .map(|row| Said { object: &row.object, title: Some(&row.title), value: value(row) })
                .collect(),
        )
    }

    fn means(&self, row: &Row) -> bool {
        self.rule.object.as_deref().is_none_or(|text| row.title.contains(text))
    }

    /// Judges one report.
    fn tick(&self, tick: &Tick, said: Vec<Said<'_>>, phases: &mut Phases, turns: &mut Vec<Turn>) {
        let at = (tick.sampled_at, tick.interval_ms);
        let mut present: BTreeSet<String> = BTreeSet::new();
        for said in said {
            present.insert(said.object.to_owned());
            let Some(value) = said.value else { continue };
            let key = (self.rule.rule_id, said.object.to_owned());
            let (phase, change) = self.condition.step(phases.get(&key).copied(), at, value);
            let before = replace(phases, key, phase);
            let subject = (said.object, said.title);
            turns.extend(self.turn(tick, subject, phase.or(before), (change, Some(value))));
        }
        let of_rule = (self.rule.rule_id, String::new());
        let absent: Vec<String> = phases
            .range(of_rule..)
            .take_while(|((rule_id, _), _)| *rule_id == self.rule.rule_id)
            .filter(|((_, object), _)| !present.contains(object))
            .map(|((_, object), _)| object.clone())
            .collect();
        for object in absent {
            let key = (self.rule.rule_id, object.clone());
            let Some(phase) = phases.get(&key).copied() else { continue };
            let ((after, change), value) = if self.metric.source().is_of_processes() {
                (self.condition.step(Some(phase), at, 0.0), Some(0.0))
            } else {
                (missing(phase, at), None)
            };
            let before = replace(phases, key, after);
            turns.extend(self.turn(tick, (&object, None), after.or(before), (change, value)));
        }
    }

    fn turn(
        &self,
        tick: &Tick,
        (object, title): (&str, Option<&str>),
        known: Option<Phase>,
        (change, value): (Option<Change>, Option<f64>),
    ) -> Option<Turn> {
        Some(Turn {
            rule_id: self.rule.rule_id,
            host_id: tick.host_id,
            object: object.to_owned(),
            title: title.map(str::to_owned),
            fires: change? == Change::Fires,
            began_at: known?.began_at,
            at: tick.sampled_at,
            value,
        })
    }
}

fn replace(phases: &mut Phases, key: (uuid::Uuid, String), phase: Option<Phase>) -> Option<Phase> {
    match phase {
        Some(phase) => phases.insert(key, phase),
        None => phases.remove(&key),
    }
}

/// Judges every report of a host that was observed, oldest first. `phases` and `lost` are what is known
/// of it, before and after.
pub fn host(
    rules: &[Ready],
    host: &JudgedHost,
    (phases, lost): (&mut Phases, &mut Option<i64>),
    observed: &Observed,
) -> Vec<Turn> {
    let mut turns = Vec::new();
    let rules: Vec<&Ready> = rules.iter().filter(|rule| rule.means_host(&host.labels)).collect();
    let meant: BTreeSet<_> = rules.iter().map(|rule| rule.rule.rule_id).collect();
    for tick in observed.ticks.get(&host.host_id).map(Vec::as_slice).unwrap_or_default() {
        // A count that shrank began anew with the agent.
        #[expect(clippy::cast_precision_loss, reason = "reports lost between two reports")]
        let newly_lost = lost.map(|before| {
            let newly = if tick.lost_reports >= before {
                tick.lost_reports - before
            } else {
                tick.lost_reports
            };
            newly as f64
        });
        *lost = Some(tick.lost_reports);
        for rule in &rules {
            if let Some(said) = rule.said(tick, observed, newly_lost) {
                rule.tick(tick, said, phases, &mut turns);
            }
        }
        end_unmeant(tick, &meant, phases, &mut turns);
    }
    turns
}

/// A host whose labels changed is not meant any more.
fn end_unmeant(
    tick: &Tick,
    meant: &BTreeSet<uuid::Uuid>,
    phases: &mut Phases,
    turns: &mut Vec<Turn>,
) {
    phases.retain(|(rule_id, object), phase| {
        if meant.contains(rule_id) {
            return true;
        }
        if phase.firing {
            turns.push(Turn {
                rule_id: *rule_id,
                host_id: tick.host_id,
                object: object.clone(),
                title: None,
                fires: false,
                began_at: phase.began_at,
                at: tick.sampled_at,
                value: None,
            });
        }
        false
    });
}
