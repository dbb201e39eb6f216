//! `/v1/rules`: conditions on samples that make alerts, and what they would have made of the past.

use std::collections::HashMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Now, Page, invalid_field};
use super::{ApiState, OperatorProblems, selection};
use crate::alerts::rules::history;
use crate::alerts::rules::metric::Metric;
use crate::auth::operator::{AlertsWrite, FleetRead};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path};
use crate::store::rules::{MAX_RULES, Rule, RuleChange};

/// Longest pattern of an object, bytes.
const MAX_OBJECT_BYTES: usize = 256;
/// Longest `for_s` and `recover_for_s`.
const MAX_FOR_S: i32 = 86_400;
/// Most alerts in the answer of a dry run.
const MAX_FOUND: usize = 1000;
/// Longest past of a dry run.
const MAX_HOURS: u32 = 168;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(replace_rule, delete_rule))
        .routes(routes!(test_rule))
}

crate::problems! {
    CreateProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField;
    ReplaceProblems = Malformed, Truncated, InvalidUtf8, BodyTooLarge, UnsupportedMediaType, InvalidField, BadParameter, NotFound;
    RuleProblems = BadParameter, NotFound;
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Severity {
    /// To be known.
    Info,
    /// To be looked at.
    Warning,
    /// To be looked at now.
    Critical,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A rule as it is written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    /// What to call it, 1 to 128 bytes, unlike any other.
    #[schema(min_length = 1, max_length = 128, example = "database busy")]
    name: String,
    /// How bad it is.
    severity: Severity,
    /// Whether reports are judged by it.
    #[serde(default = "enabled")]
    #[schema(default = true)]
    enabled: bool,
    /// Hosts by their labels, such as `env=prod,role in (db, cache)`; empty: every host.
    #[serde(default)]
    #[schema(max_length = 1024)]
    selector: String,
    /// What is looked at.
    metric: Metric,
    /// Text that the mount point, device, interface or command line contains; absent: any.
    #[schema(max_length = 256, example = "postgres")]
    object: Option<String>,
    /// Whether the condition is to lie below the threshold, not above it.
    #[serde(default)]
    below: bool,
    /// The condition holds strictly beyond it.
    threshold: f64,
    /// The condition is gone at it or on its other side; absent: `threshold`.
    recover_threshold: Option<f64>,
    /// How long the condition must hold before the alert, s.
    #[serde(default = "for_s")]
    #[schema(minimum = 0, maximum = 86400, default = 300)]
    for_s: i32,
    /// How long it must be gone before the alert is over, s.
    #[serde(default = "recover_for_s")]
    #[schema(minimum = 0, maximum = 86400, default = 60)]
    recover_for_s: i32,
}

fn enabled() -> bool {
    true
}

fn for_s() -> i32 {
    300
}

fn recover_for_s() -> i32 {
    60
}

impl RuleBody {
    fn into_rule(self, rule_id: Uuid, now: OffsetDateTime) -> ApiResult<Rule> {
        params::check_name("name", &self.name)?;
        if !self.selector.is_empty() {
            selection::parse(&self.selector).map_err(|detail| invalid_field("selector", detail))?;
        }
        let recover_threshold = self.recover_threshold.unwrap_or(self.threshold);
        let is_usable = |value: f64| value.is_finite() && value.abs() < 1e18;
        if !is_usable(self.threshold) || !is_usable(recover_threshold) {
            return Err(invalid_field("threshold", "must be a number below 1e18"));
        }
        let on_good_side = if self.below {
            recover_threshold >= self.threshold
        } else {
            recover_threshold <= self.threshold
        };
        if !on_good_side {
            return Err(invalid_field(
                "recover_threshold",
                "must not lie where the condition holds",
            ));
        }
        for (name, value) in [("for_s", self.for_s), ("recover_for_s", self.recover_for_s)] {
            if !(0..=MAX_FOR_S).contains(&value) {
                return Err(invalid_field(name, format!("must lie between 0 and {MAX_FOR_S}")));
            }
        }
        self.check_object()?;
        Ok(Rule {
            rule_id,
            name: self.name,
            severity: self.severity.as_str().into(),
            enabled: self.enabled,
            selector: self.selector,
            metric: self.metric.name().into(),
            object: self.object,
            below: self.below,
            threshold: self.threshold,
            recover_threshold,
            for_s: self.for_s,
            recover_for_s: self.recover_for_s,
            built_in: false,
            created_at: now,
        })
    }

    fn check_object(&self) -> ApiResult<()> {
        let is_count = self.metric == Metric::ProcessCount;
        if let Some(object) = &self.object
            && (object.is_empty() || object.len() > MAX_OBJECT_BYTES || object.contains('\0'))
        {
            let detail = format!("must have 1 to {MAX_OBJECT_BYTES} bytes and no NUL");
            return Err(invalid_field("object", detail));
        }
        if self.object.is_some() && !self.metric.is_per_object() && !is_count {
            return Err(invalid_field("object", "is of no use for a metric of the host"));
        }
        if is_count && self.object.is_none() {
            return Err(invalid_field("object", "must say which command lines are counted"));
        }
        if self.below && self.metric.name().starts_with("process.") && !is_count {
            let detail = "cannot be asked of a process: those that use little are not recorded";
            return Err(invalid_field("below", detail));
        }
        Ok(())
    }
}

/// A rule just made.
#[derive(Serialize, ToSchema)]
struct CreatedRule {
    /// Its id.
    rule_id: Uuid,
}

/// Every rule, by name. At most 200.
#[utoipa::path(get, path = "/v1/rules", tag = "alerts", security(("api_key" = ["fleet:read"])),
    responses((status = 200, description = "Rules, by name", body = Page<Rule>), OperatorProblems))]
async fn list_rules(State(state): State<ApiState>, _: FleetRead) -> ApiResult<Answer<Page<Rule>>> {
    Ok(Answer(Page { items: state.readers.rules().await?, next: None }))
}

/// Makes a rule. Reports that come from now on are judged by it.
#[utoipa::path(post, path = "/v1/rules", tag = "alerts", security(("api_key" = ["alerts:write"])),
    request_body = RuleBody,
    responses((status = 201, description = "The rule", body = CreatedRule), CreateProblems, OperatorProblems))]
async fn create_rule(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Now(now): Now,
    Json(body): Json<RuleBody>,
) -> ApiResult<(StatusCode, Answer<CreatedRule>)> {
    let rule = body.into_rule(Uuid::now_v7(), now)?;
    done(rule.rule_id, state.writers.create_rule(&rule, &operator.actor()).await?)?;
    Ok((StatusCode::CREATED, Answer(CreatedRule { rule_id: rule.rule_id })))
}

/// Puts another rule in its place. Its open alerts are over: they were about something else.
#[utoipa::path(put, path = "/v1/rules/{rule_id}", tag = "alerts", security(("api_key" = ["alerts:write"])),
    params(("rule_id" = Uuid, Path, description = "Id of the rule")),
    request_body = RuleBody,
    responses((status = 204, description = "The rule is replaced"), ReplaceProblems, OperatorProblems))]
async fn replace_rule(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Now(now): Now,
    Path(rule_id): Path<Uuid>,
    Json(body): Json<RuleBody>,
) -> ApiResult<StatusCode> {
    let rule = body.into_rule(rule_id, now)?;
    done(rule_id, state.writers.replace_rule(&rule, &operator.actor()).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a rule; its alerts are over.
#[utoipa::path(delete, path = "/v1/rules/{rule_id}", tag = "alerts", security(("api_key" = ["alerts:write"])),
    params(("rule_id" = Uuid, Path, description = "Id of the rule")),
    responses((status = 204, description = "The rule is gone"), RuleProblems, OperatorProblems))]
async fn delete_rule(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Path(rule_id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    if !state.writers.delete_rule(rule_id, &operator.actor()).await? {
        return Err(no_such_rule(rule_id));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A rule to be tried on the past.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RuleTestBody {
    /// The rule.
    rule: RuleBody,
    /// How far back, hours.
    #[serde(default = "hours")]
    #[schema(minimum = 1, maximum = 168, default = 24)]
    hours: u32,
}

fn hours() -> u32 {
    24
}

/// What a rule would have done.
#[derive(Serialize, ToSchema)]
struct RuleTest {
    /// Hosts that it means.
    hosts: usize,
    /// Those that were judged in the time that a dry run has; fewer than `hosts`: ask for less.
    judged_hosts: usize,
    /// Reports judged.
    reports: usize,
    /// Alerts that would have begun.
    alerts: usize,
    /// The first 1,000 of them, by host and time.
    items: Vec<FoundAlert>,
}

/// An alert that would have been.
#[derive(Serialize, ToSchema)]
struct FoundAlert {
    /// On which host.
    host_id: Uuid,
    /// What it is called now.
    host_name: Option<String>,
    /// Mount point, device, interface or command line; null: the host itself.
    object: Option<String>,
    /// First sample of the condition.
    #[serde(with = "time::serde::rfc3339")]
    began_at: OffsetDateTime,
    /// The sample that made it an alert.
    #[serde(with = "time::serde::rfc3339")]
    fired_at: OffsetDateTime,
    /// Value of that sample.
    value: Option<f64>,
    /// The sample that ended it; null: it holds.
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
}

/// What a rule would have found in the samples that are stored. Nothing is kept and nothing is sent.
#[utoipa::path(post, path = "/v1/rules/test", tag = "alerts", security(("api_key" = ["alerts:write"])),
    request_body = RuleTestBody,
    responses((status = 200, description = "What it would have found", body = RuleTest), CreateProblems, OperatorProblems))]
async fn test_rule(
    State(state): State<ApiState>,
    _: AlertsWrite,
    Now(now): Now,
    Json(body): Json<RuleTestBody>,
) -> ApiResult<Answer<RuleTest>> {
    if !(1..=MAX_HOURS).contains(&body.hours) {
        return Err(invalid_field("hours", format!("must lie between 1 and {MAX_HOURS}")));
    }
    let rule = body.rule.into_rule(Uuid::now_v7(), now)?;
    let hosts = state.readers.judged_hosts().await?;
    let (hosts, names): (Vec<_>, Vec<_>) =
        hosts.into_iter().map(|(host, name)| (host.clone(), (host.host_id, name))).unzip();
    let names: HashMap<Uuid, String> = names.into_iter().collect();
    let window = (now - Duration::hours(body.hours.into()), now);
    let found = history::judge(&state.readers, &rule, &hosts, window).await?;
    let alerts = history::alerts(&found.turns);
    let items = alerts.iter().take(MAX_FOUND).map(|(begin, end)| FoundAlert {
        host_id: begin.host_id,
        host_name: names.get(&begin.host_id).cloned(),
        object: begin.title.clone(),
        began_at: begin.began_at,
        fired_at: begin.at,
        value: begin.value,
        ended_at: end.map(|end| end.at),
    });
    Ok(Answer(RuleTest {
        hosts: found.hosts,
        judged_hosts: found.judged,
        reports: found.reports,
        alerts: alerts.len(),
        items: items.collect(),
    }))
}

fn done(rule_id: Uuid, change: RuleChange) -> ApiResult<()> {
    match change {
        RuleChange::Done => Ok(()),
        RuleChange::NameTaken => Err(invalid_field("name", "another rule has it")),
        RuleChange::TooMany => {
            let detail = format!("there are {MAX_RULES} rules, and no more are judged by");
            Err(invalid_field("name", detail))
        }
        RuleChange::NoRule => Err(no_such_rule(rule_id)),
    }
}

fn no_such_rule(rule_id: Uuid) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("There is no rule {rule_id}."))
}
