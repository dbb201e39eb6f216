//! `/v1/alerts`: what is wrong, and who knows.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared_model::ProblemCode;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::params::{self, Now, Page};
use super::{ApiState, OperatorProblems};
use crate::alerts::evidence::Evidence;
use crate::auth::operator::{AlertsWrite, FleetRead};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::store::alerts::Alert;

/// The routes of this resource.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(list_alerts)).routes(routes!(acknowledge_alert))
}

crate::problems! {
    AlertsProblems = BadParameter;
    AcknowledgeProblems = BadParameter, NotFound;
}

/// Which alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AlertsQuery {
    /// Only those that are not over.
    open: Option<bool>,
    /// Most alerts returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<Uuid>,
}

/// An alert, and where to look for what led to it.
#[derive(Debug, Serialize, ToSchema)]
struct AlertFound {
    #[serde(flatten)]
    alert: Alert,
    /// Null: of the fleet.
    evidence: Option<Evidence>,
}

impl AlertFound {
    fn new(alert: Alert, now: OffsetDateTime) -> Self {
        let times = (alert.began_at, alert.resolved_at);
        let metric = alert.detail["metric"].as_str();
        let evidence = alert.host_id.map(|host_id| Evidence::of(host_id, metric, times, now));
        Self { alert, evidence }
    }
}

/// Alerts, newest first.
#[utoipa::path(get, path = "/v1/alerts", tag = "alerts", security(("api_key" = ["fleet:read"])),
    params(AlertsQuery),
    responses((status = 200, description = "Alerts, newest first", body = Page<AlertFound>), AlertsProblems, OperatorProblems))]
async fn list_alerts(
    State(state): State<ApiState>,
    _: FleetRead,
    Now(now): Now,
    Query(query): Query<AlertsQuery>,
) -> ApiResult<Answer<Page<AlertFound>>> {
    let limit = params::limit(query.limit, 100, 1000)?;
    let open = query.open.unwrap_or_default();
    let alerts = state.readers.alerts(open, query.after, limit + 1).await?;
    let alerts = alerts.into_iter().map(|alert| AlertFound::new(alert, now)).collect();
    Ok(Answer(Page::cut(alerts, limit, |found: &AlertFound| found.alert.alert_id.to_string())))
}

/// For how long an acknowledgement counts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AcknowledgeQuery {
    /// Seconds, up to a week; then the alert is told again.
    #[param(default = 86400, minimum = 60, maximum = 604_800)]
    for_s: Option<u32>,
}

/// Says that an operator knows of an alert, for a day or as long as `for_s` says. Saying it again sets name and end.
#[utoipa::path(put, path = "/v1/alerts/{alert_id}/acknowledgement", tag = "alerts", security(("api_key" = ["alerts:write"])),
    params(("alert_id" = Uuid, Path, description = "Id of the alert"), AcknowledgeQuery),
    responses((status = 204, description = "The alert is acknowledged"), AcknowledgeProblems, OperatorProblems))]
async fn acknowledge_alert(
    State(state): State<ApiState>,
    AlertsWrite(operator): AlertsWrite,
    Path(alert_id): Path<Uuid>,
    Query(query): Query<AcknowledgeQuery>,
) -> ApiResult<StatusCode> {
    let for_s = query.for_s.unwrap_or(86_400);
    if !(60..=604_800).contains(&for_s) {
        return Err(params::bad_parameter("for_s", "must lie between 60 and 604800"));
    }
    if !state.writers.acknowledge_alert(alert_id, for_s, &operator.actor()).await? {
        let detail = format!("There is no alert {alert_id} that is not over.");
        return Err(ApiError::new(ProblemCode::NotFound, detail));
    }
    Ok(StatusCode::NO_CONTENT)
}
