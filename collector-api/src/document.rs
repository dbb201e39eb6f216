//! The OpenAPI document of both doors: `procfleet-server openapi`, `GET /openapi.yaml` and the
//! committed `openapi.yaml`. It is made from the handlers; a test says that the file is fresh.

use std::collections::btree_map::Entry;
use std::sync::LazyLock;

use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use shared_model::ProblemCode;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, InfoBuilder, License, OpenApi, OpenApiBuilder, RefOr, Required, tag::TagBuilder,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{api, artifacts, configuration, enroll, health, ingest, openapi};

const DESCRIPTION: &str = "\
Process-level monitoring for a whole Linux fleet: which process on which host ate the CPU, memory, \
disk or network, when, and what was its command line.

Two doors, never the same listener: agents speak to the **agent door** (`:7443`, TLS with client \
certificates), operators to the **operator door** (`:7080`, API keys). `/livez` and `/readyz` are on both.

JSON in `snake_case`. Times are RFC 3339. Units end names: `_us`, `_ms`, `_s`, `_bytes`, `_ratio`. Deltas are \
over the `interval_ms` or `covered_ms` beside them; rates are never given. Unknown is `null`, never `0`. \
A window is (`from`, `to`]: a sample stands for the interval that ended at its `sampled_at`. Unknown \
query parameters are refused. Errors are problem documents (RFC 9457) with a stable `code`.";

/// The document.
pub fn document() -> OpenApi {
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Procfleet")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(License::new("Apache-2.0")))
                .build(),
        )
        .tags(Some(
            [
                ("hosts", "Hosts and their series"),
                ("processes", "Who used what, and where a command line ran"),
                ("configuration", "What agents are to use, and what became of it"),
                ("releases", "Which release of the agent hosts run, and how one gets to them"),
                ("alerts", "What is wrong, and where it is told"),
                ("maintenance", "How far roll-ups, retention and compression are"),
                ("access", "API keys and enrolment tokens"),
                ("agents", "What agents call, on the agent door"),
                ("health", "For load balancers, Prometheus and programs that write clients"),
            ]
            .map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()),
        ))
        .build();
    let own = routes().into_openapi();
    for part in [
        api::openapi(),
        enroll::openapi(),
        artifacts::openapi(),
        configuration::agents::openapi(),
        ingest::openapi(),
        health::openapi(),
        own,
    ] {
        document.merge(part);
    }
    idempotent(&mut document);
    let components = document.components.get_or_insert_with(Components::new);
    openapi::schemas::add_to(components);
    add_security(components);
    document
}

/// `GET /openapi.yaml`, for the operator door.
pub fn routes() -> OpenApiRouter {
    OpenApiRouter::default().routes(routes!(get_openapi))
}

/// This document. Needs no API key: it tells nothing about the fleet.
#[utoipa::path(get, path = "/openapi.yaml", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = String, content_type = "application/yaml")))]
async fn get_openapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    // Once: whoever asks needs no key, and making it takes a while.
    static YAML: LazyLock<String> = LazyLock::new(yaml);
    ([(CONTENT_TYPE, "application/yaml")], YAML.as_str())
}

/// Every `POST` with an API key takes `Idempotency-Key`: a layer around the routes, not the handlers,
/// knows of it.
fn idempotent(document: &mut OpenApi) {
    let codes = [
        ProblemCode::BadParameter,
        ProblemCode::IdempotencyInProgress,
        ProblemCode::BodyTooLarge,
        ProblemCode::IdempotencyKeyReused,
    ];
    let operations = document.paths.paths.values_mut().filter_map(|item| item.post.as_mut());
    for operation in operations {
        let takes_api_key = serde_json::to_value(&operation.security)
            .is_ok_and(|security| security.pointer("/0/api_key").is_some());
        if !takes_api_key {
            continue;
        }
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Any word of 1 to 255 visible ASCII characters. Sent again within a day with the same \
                 request, the first answer is given again and nothing is done twice.",
            ))
            .schema(Some(
                ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255)),
            ))
            .build();
        operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
        for (status, response) in openapi::problem_responses(&codes) {
            match (operation.responses.responses.entry(status), response) {
                (Entry::Vacant(vacant), response) => drop(vacant.insert(response)),
                (Entry::Occupied(mut known), RefOr::T(more)) => {
                    if let RefOr::T(known) = known.get_mut()
                        && !known.description.contains(&more.description)
                    {
                        known.description =
                            format!("{}\n\n{}", known.description, more.description);
                    }
                }
                _ => {}
            }
        }
    }
}

fn add_security(components: &mut Components) {
    let bearer = |format: &str, text: &str| {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        SecurityScheme::Http(scheme.description(Some(text)).build())
    };
    let schemes = [
        (
            "api_key",
            bearer(
                "pfk1_<id>_<secret>",
                "An operator's API key. The scope a route needs is listed with it. \
                 A key has all scopes of its role, or those of them that it was made with. `viewer`: fleet:read; \
                 `operator`: also hosts:write, configuration:write, alerts:write; `admin`: all.",
            ),
        ),
        (
            "enrollment_token",
            bearer(
                "<id>.<secret>",
                "Id and secret of an enrolment token, as the paste holds them.",
            ),
        ),
        (
            "agent_certificate",
            SecurityScheme::MutualTls {
                description: Some("The certificate a host got when it enrolled.".into()),
                deprecated: None,
                extensions: None,
            },
        ),
    ];
    for (name, scheme) in schemes {
        components.security_schemes.insert(name.into(), scheme.into());
    }
}

/// The document as YAML, as it is committed.
pub fn yaml() -> String {
    #[expect(clippy::expect_used, reason = "strings, numbers and maps with string keys")]
    document().to_yaml().expect("an OpenAPI document is YAML")
}
