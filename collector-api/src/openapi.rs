//! The parts of the OpenAPI document that no handler's own types give: problems, security schemes,
//! and the bodies of the agents' protocol.
//!
//! The wire types live in `shared-model`, which depends on nothing that knows OpenAPI. Their schemas
//! are written here by hand; a test holds each against the JSON its type makes.

pub mod schemas;

use std::collections::BTreeMap;

use shared_model::ProblemCode;
use shared_model::problem::PROBLEM_MEDIA_TYPE;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

/// Problem responses of a route, one per status, that name their codes:
/// `problems! { pub(crate) HostProblems = BadParameter, NotFound, AmbiguousHost; }` makes a type for
/// `#[utoipa::path(responses(HostProblems, …))]`.
#[macro_export]
macro_rules! problems {
    ($($(#[$meta:meta])* $visibility:vis $name:ident = $($code:ident),+;)+) => {$(
        $(#[$meta])*
        $visibility struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::openapi::problem_responses(&[$(shared_model::ProblemCode::$code),+])
            }
        }
    )+};
}

/// Of a JSON value that is a configuration.
pub fn configuration() -> Ref {
    Ref::from_schema_name("Configuration")
}

/// Of a JSON value that is a configuration, or null.
pub fn configuration_or_null() -> Schema {
    let one_of = OneOfBuilder::new()
        .item(configuration())
        .item(ObjectBuilder::new().schema_type(Type::Null));
    one_of.into()
}

/// One response per status; its description lists the codes.
pub fn problem_responses(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<String>>::new();
    for code in codes {
        let line = format!("`{}`: {}.", code.as_str(), code.title());
        by_status.entry(code.status()).or_default().push(line);
    }
    by_status
        .into_iter()
        .map(|(status, lines)| {
            let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
            let response = ResponseBuilder::new()
                .description(lines.join("\n\n"))
                .content(PROBLEM_MEDIA_TYPE, content)
                .build();
            (status.to_string(), response.into())
        })
        .collect()
}
